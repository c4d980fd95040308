"""Entries of chapters 03 to 06: sparse recovery, classical and unfolded; low rank plus sparse."""

import math
from itertools import product, repeat

import torch

from mbdl_course import datasets, lowrank, sparse
from mbdl_course.evaluate import nmse_db, nmse_db_per_sample
from mbdl_course.fold import estimate, last
from mbdl_course.learn import Stage, batches, draws, seeded
from mbdl_course.unfold import Thetas, Unfolded
from mbdl_course.weights import nmse_db as evaluated
from mbdl_course.weights import noisy, training_set, values
from mbdl_course.weights.common import fitted
from mbdl_course.weights.lowrank import bubbles, separated, start
from mbdl_course.weights.unrolling import drawn, large

from .entry import Entry, Scale
from .tracking import on


def slipped(x, H, steps):
    """ADMM as the peer has it: (HᵀH + ρI)⁻¹(Hᵀx + ρz), ρ stands where 2λ belongs."""
    peer = datasets.reference("sparse")["lasso"]

    def part(x, H):
        fit = sparse.ridge(x, H)
        return lambda z, lam, mu, rho: (fit(z, rho / 2, mu, rho)[0], lam, mu, rho)

    thetas = repeat(tuple(peer[f"admm_{k}"] for k in ("lam", "mu", "rho")), steps)
    return last(sparse.admm(x, H, thetas, part=part))


# ---- Chapter 03 ---------------------------------------------------------------------------------


def lasso(seed, device):
    """The LASSO by two algorithms, by the peer's slip, and the oracle, on one draw."""
    g = seeded(seed)
    H = sparse.gaussian_matrix(256, 1000, g, rows="orthonormal")
    s = sparse.sparse_signals(1, 1000, g, sparsity=5, std=0.5)[0]
    x = H @ s + 0.01 * torch.randn(256, 1, generator=g)
    x, H, s = (v.double().to(device) for v in (x, H, s))
    peer = datasets.reference("sparse")["lasso"]

    ista = last(sparse.ista(x, H, repeat((1.0, 0.01), 1000)))
    admm = last(sparse.admm(x, H, repeat((0.1, 1.0, 0.01), 500)))
    return {
        "LASSO by ISTA": nmse_db(ista, s),
        "LASSO by ADMM": nmse_db(admm.v, s),
        "oracle": nmse_db(sparse.least_squares_on(s != 0, x, H), s),
        "the peer's slip": nmse_db(slipped(x, H, peer["admm_steps"]).s, s),
    }


def lasso_published():
    peer = datasets.reference("sparse")["lasso"]
    return {
        "LASSO by ISTA": peer["ista_nmse_db"],
        "oracle": peer["oracle_nmse_db_probe"],
        "the peer's slip": peer["admm_nmse_db"],
    }


# ---- Chapter 04 ---------------------------------------------------------------------------------

RHOS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3)


def tuned(algorithm, grid, steps, H, data, test):
    """The estimate of test after so many steps, with the θ that is best on data."""

    def run(theta, x):
        return estimate(last(algorithm(x, H, repeat(theta, steps))))

    return run(min(grid, key=lambda theta: nmse_db(run(theta, data[0]), data[1])), test[0])


def unfolded_admm(seed, device, layers, n_train, steps, n_test):
    """Unfolded ADMM and its rivals, all tuned or trained on the same signals; LISTA goes on from
    unfolded ISTA, for half as many steps."""
    H = sparse.gaussian_matrix(150, 200, seeded(seed), dtype=torch.float32)
    _, draw = noisy(H=H)
    data, held_out = on(device, training_set(draw, n_train, seed + 1))
    test, H = on(device, (draw(n_test, seeded(seed + 2)), H))
    mu = 1 / sparse.lipschitz(H).item()

    def fit(network, steps, lr, size=128):
        source = batches(*data, size, seed)
        return fitted(network.to(device), source, [Stage(steps, lr)], held_out)

    start = Thetas((0.2, 1.0, 0.05), layers)
    numbers = fit(Unfolded(sparse.admm, start, H=H), steps, 8e-2, 64)
    of_ista = fit(Unfolded(sparse.ista, Thetas((mu, 0.1), layers), H=H), steps, 3e-2)
    lista = fit(sparse.LISTA(H, values(of_ista)), max(steps // 2, 1), 1e-4)
    for_admm = product((0.02, 0.05, 0.1, 0.2), (1.0,), RHOS[:5])
    for_ista = [(step * mu, rho) for step in (1.0, 1.5, 1.9, 2.5, 3.0) for rho in RHOS]
    for_fista = [(step * mu, rho) for step in (1.0, 1.5, 2.0) for rho in RHOS]
    x, s = test
    return {
        "unfolded ADMM": evaluated(numbers, test),
        "unfolded ISTA": evaluated(of_ista, test),
        "LISTA": evaluated(lista, test),
        "ADMM, tuned": nmse_db(tuned(sparse.admm, for_admm, layers, H, data, test), s),
        "FISTA, tuned": nmse_db(tuned(sparse.fista, for_fista, layers, H, data, test), s),
        "ISTA, tuned": nmse_db(tuned(sparse.ista, for_ista, layers, H, data, test), s),
        "the peer's slip": nmse_db(slipped(x, H, layers).s, s),
        "oracle": nmse_db(sparse.least_squares_on(s != 0, x, H), s),
    }


def unfolded_published(layers):
    peer = datasets.reference("sparse")["unfolded"]
    found = {"the peer's slip": peer["admm_untrained_nmse_db"]}
    if layers == 6:
        found["LISTA"] = peer["lista_nmse_db"]
    if str(layers) in peer["unfolded_admm_nmse_db"]:
        found["unfolded ADMM"] = peer["unfolded_admm_nmse_db"][str(layers)]
    return found


# ---- Chapter 05 ---------------------------------------------------------------------------------


def unrolled(seed, device, noise, n, steps, n_test):
    """Sixteen layers on n x 2n; LISTA's and LISTA-CPSS's matrices are shared by the layers."""
    clean = noise == "noiseless"
    H = sparse.gaussian_matrix(n, 2 * n, seeded(seed), dtype=torch.float32)
    on_cpu, (H,) = drawn(H, None if clean else 20.0), on(device, [H])

    def draw(size, generator):
        return on(device, on_cpu(size, generator))

    data, held_out, test = (
        draw(k, seeded(seed + i)) for i, k in enumerate((1000, 1000, n_test), 1)
    )

    def fit(network, *stages):
        network = network.to(device)
        return fitted(network, draws(draw, 64, seed + 4), stages, held_out, 100)

    kept, B = sparse.support_schedule(2 * n, 16), sparse.analytic_weights(H)
    each = [Stage(max(steps // 20, 1), 2e-2, True, k + 1) for k in range(16)]
    alista = fit(large(H, not clean)["alista"], *each, Stage(steps, 5e-3))
    cpss = sparse.ALISTA(H, values(alista), kept=kept, learned=True)
    numbers = Thetas((B, 1.0, 0.15), 16, tied=(0,), frozen=(0, 1))
    numbers = fit(Unfolded(sparse.ista, numbers, H=H, part=sparse.with_back), Stage(steps, 3e-2))
    lista = sparse.LISTA(H, values(numbers), tied=(0, 1), back=B)
    nets = {
        "LISTA": fit(lista, Stage(steps, 5e-5 if clean else 3e-4)),
        "LISTA-CPSS": fit(cpss, Stage(max(steps // 6, 1), 2e-5)),
        "ALISTA": alista,
    }
    L = sparse.lipschitz(H).item()
    grid = [(step / L, rho) for step in (1.0, 1.5, 2.0) for rho in RHOS]
    found = {"FISTA, tuned": tuned(sparse.fista, grid, 16, H, data, test)}
    with torch.no_grad():
        found |= {name: network(test[0]) for name, network in nets.items()}
    means = {name: nmse_db_per_sample(s_hat, test[1]) for name, s_hat in found.items()}
    return means | {f"{name}{SUMS}": nmse_db(s_hat, test[1]) for name, s_hat in found.items()}


SUMS = ", ratio of sums"


def unrolled_published(noise):
    found = datasets.reference("unrolling")["nmse_db"][noise]
    return {name: found[name] for name in ("LISTA", "LISTA-CPSS", "ALISTA")}


# ---- Chapter 06 ---------------------------------------------------------------------------------


def corona(seed, device, layers, n_train, steps, n_test, size, frames):
    """The error of S in dB above that of CORONA with one layer, all trained on the same movies."""
    g = seeded(seed)
    counts = n_train, max(n_train // 4, 5), n_test
    movies = [bubbles(count, g, size=size, frames=frames) for count in counts]
    data, held_out, (x, parts) = on(device, movies)

    def unfolded(layers):
        first = Unfolded(lowrank.ista, Thetas(start(layers))).to(device)
        rate = 5e-2 if layers > 1 else 5e-3  # of one layer, larger steps end at zero
        separated(first, data, held_out, Stage(steps, rate), seed)
        widths = [5 if k < 3 else 3 for k in range(layers)]
        network = lowrank.CORONA(values(first), height=size, width=widths).to(device)
        return first, separated(network, data, held_out, Stage(steps, 3e-3), seed + 1)

    def fista(iterations, begin):
        def run(theta, x):
            thetas = repeat(theta, iterations)
            return last(lowrank.fista(x, None, thetas, start=begin(x))).S

        fit = data[0][:20], data[1].S[:20]
        grid = [(0.5, rho, k * rho) for rho in (0.02, 0.1, 0.4) for k in (3, 5, 8)]
        best = min(grid, key=lambda theta: lowrank.separation_db(run(theta, fit[0]), fit[1]))
        return run(best, x)

    _, one = unfolded(1)
    thresholds, network = unfolded(layers)
    cnn = lowrank.MovieCNN(frames, size, generator=seeded(seed + 2)).to(device)
    cnn = separated(cnn, data, held_out, Stage(5 * steps, 3e-3, patience=8), seed, both=False)
    with torch.no_grad():
        found = {
            "CORONA": network(x),
            "thresholds only": thresholds(x),
            "CNN": cnn(x),
            "FISTA from zero, 100": fista(100, lambda x: None),
            "SVD filter": lowrank.svd_filter(x, 1).S,
            "FISTA from the filter, 10": fista(10, lambda x: lowrank.svd_filter(x, 1)),
        }
        against = lowrank.separation_db(one(x), parts.S)
        return {k: lowrank.separation_db(S, parts.S) - against for k, S in found.items()}


def corona_published(layers):
    public = datasets.reference("lowrank")
    one = public["val_mse"]["1"]
    found = {"CORONA": public["val_mse"].get(str(layers)), "CNN": public["val_mse_cnn"]}
    return {name: 10 * math.log10(mse / one) for name, mse in found.items() if mse}


ENTRIES = {
    "lasso": Entry(
        "The LASSO by ISTA and ADMM, 256 × 1000, five non-zeros (chapter 03)",
        "Notebooks of Shlezinger, Eldar, Model-Based Deep Learning, doi 10.1561/2000000113",
        lasso,
        Scale({}, 10, "ten draws; the peer shows one"),
        Scale({}, 100, "a hundred draws; the peer shows one"),
        lasso_published,
        {"LASSO by ISTA": "model-based", "LASSO by ADMM": "ADMM", "oracle": "bound",
         "the peer's slip": "IHT"},
        "NMSE in dB",
    ),
    "unfolded_admm": Entry(
        "Unfolded ADMM over its layers, 150 × 200, four non-zeros, 18 dB (chapter 04)",
        "Notebooks of Shlezinger, Eldar, Model-Based Deep Learning, doi 10.1561/2000000113",
        unfolded_admm,
        Scale({"layers": [1, 3, 6, 11]}, 3, "a part of the layers; half of the steps; three seeds",
              {"n_train": 1000, "steps": 800, "n_test": 1000}),
        Scale({"layers": [1, 3, 5, 6, 7, 11]}, 5, "1,000 signals, as the peer",
              {"n_train": 1000, "steps": 1500, "n_test": 1000}),
        unfolded_published,
        {"unfolded ADMM": "unfolded", "unfolded ISTA": "learned", "LISTA": "matrices",
         "ADMM, tuned": "ADMM", "FISTA, tuned": "FISTA", "ISTA, tuned": "model-based",
         "the peer's slip": "IHT", "oracle": "bound"},
        "NMSE in dB",
    ),
    "unrolled": Entry(
        "LISTA, LISTA-CPSS, ALISTA with 16 layers; mean of dB, and ratio of sums (chapter 05)",
        "Chen et al. 2021, Learning to Optimize, arXiv 2103.12828, Fig. 5, 256 × 512, read off",
        unrolled,
        Scale({"noise": ["noiseless", "SNR 20 dB"]}, 3, "100 × 200; half of the steps; three seeds",
              {"n": 100, "steps": 600, "n_test": 2000}),
        Scale({"noise": ["noiseless", "SNR 20 dB"]}, 5,
              "256 × 512; LISTA and LISTA-CPSS share one matrix between the layers",
              {"n": 256, "steps": 1200, "n_test": 10_000}),
        unrolled_published,
        {f"{name}{metric}": role for metric in ("", SUMS) for name, role in
         {"FISTA, tuned": "FISTA", "LISTA": "matrices", "LISTA-CPSS": "selected",
          "ALISTA": "coupled"}.items()},
        "NMSE in dB",
    ),
    "corona": Entry(
        "CORONA against one layer of it, by depth (chapter 06)",
        "Solomon et al. 2020, doi 10.1109/TMI.2019.2941271, and its repository",
        corona,
        Scale({"layers": [2, 3, 5]}, 3, "400 movies of 16 × 16 × 12; there 2,400 of 32 × 32 × 20",
              {"n_train": 400, "steps": 300, "n_test": 100, "size": 16, "frames": 12}),
        Scale({"layers": [2, 3, 4, 5, 6, 8, 9, 10]}, 5,
              "as many movies and updates as published, of another simulator, in smaller batches",
              {"n_train": 2400, "steps": 3000, "n_test": 800, "size": 32, "frames": 20}),
        corona_published,
        {"CORONA": "matrices", "thresholds only": "unfolded", "CNN": "black box",
         "FISTA from zero, 100": "FISTA", "SVD filter": "model-based",
         "FISTA from the filter, 10": "ADMM"},
        "dB vs one layer",
    ),
}  # fmt: skip
