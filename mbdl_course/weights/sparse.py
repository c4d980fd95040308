"""Recipes of chapters 03 and 04: sparse recovery, learned and unfolded."""

from itertools import product

import torch
from torch import nn

from mbdl_course import datasets
from mbdl_course.learn import Stage, batches, draws, seeded
from mbdl_course.networks import mlp
from mbdl_course.operators import wavelet_basis
from mbdl_course.sparse import (  # fmt: skip
    LISTA,
    UnfoldedADMM,
    admm,
    analytic_weights,
    gaussian_matrix,
    ista,
    lipschitz,
    observed,
    sparse_signals,
    with_back,
)
from mbdl_course.unfold import Thetas, Unfolded

from .common import (
    MATRIX_SEED,
    SEEDS,
    TEST_SEED,
    VALIDATION_SEED,
    File,
    checkpoint,
    fitted,
    nmse_db,
    said,
    training_set,
    values,
)  # fmt: skip

SIZES = (10, 100, 1000, 10_000)  # n_train
DEPTHS = (1, 2, 3, 5, 6, 8, 10)
SNR_DB = 18.24  # 4 non-zeros of standard deviation 0.5 against noise of 0.01 in 150 measurements


# ---- Problems: each a matrix H and draw(size, generator) -> (x, s) ----------------------------


def noiseless(n, m):
    """x = H s, Bernoulli(0.1)-Gaussian s: the setting of the LISTA literature."""
    H = gaussian_matrix(n, m, seeded(MATRIX_SEED), dtype=torch.float32)

    def draw(size, generator):
        s = sparse_signals(size, m, generator, density=0.1, dtype=torch.float32)
        return observed(s, H, torch.zeros((), dtype=torch.float32)), s

    return H, draw


def noisy(snr_db=SNR_DB, sparsity=4, H=None):
    """150 measurements of 200 unknowns, 4 of them non-zero with standard deviation 0.5."""
    if H is None:
        H = gaussian_matrix(150, 200, seeded(MATRIX_SEED), dtype=torch.float32)

    def draw(size, generator):
        s = sparse_signals(size, 200, generator, sparsity=sparsity, std=0.5, dtype=torch.float32)
        return observed(
            s, H, torch.randn(size, 150, 1, generator=generator, dtype=torch.float32), snr_db
        ), s

    return H, draw


def heartbeats(length=128, n=38, snr_db=20.0):
    """Windows of the ECG in a wavelet basis, 30 % random measurements: H = Φ Ψ.

    The record is cut in time into three parts with one heartbeat each: train, validation, test.
    Returns H, draw, and the coefficients of all windows of each part. draw takes windows of the
    training part with fresh noise.
    """
    signal = datasets.ecg()
    parts = datasets.split_in_time(signal, 0.34, 0.33)
    basis = wavelet_basis(length)
    H = torch.randn(n, length, generator=seeded(MATRIX_SEED), dtype=torch.float64)
    H = H / n**0.5 @ basis
    mean, std = parts[0].mean(), parts[0].std()
    coefficients = [
        (basis.mT @ datasets.windows((part - mean) / std, length, 1)).float() for part in parts
    ]

    def draw(size, generator, of=coefficients[0]):
        s = of[torch.randint(len(of), (size,), generator=generator)]
        return observed(
            s, H.float(), torch.randn(size, n, 1, generator=generator, dtype=torch.float32), snr_db
        ), s

    return H.float(), draw, coefficients


# ---- Recipes ------------------------------------------------------------------------------------


def lista_minute():
    """LISTA from the model's own filling, as far as a minute on one core takes it."""
    H, draw = noiseless(100, 200)
    models, validation = [], draw(1000, seeded(VALIDATION_SEED))
    for seed in SEEDS:
        model = LISTA(H, (1 / lipschitz(H).item(), 0.2), 10)
        models.append(fitted(model, draws(draw, 128, seed), [Stage(2800, 3e-3)], validation, 400))
    return models, said("noiseless 100 x 200", "fresh draws, 358 400 signals", "2800, batch 128")


def from_analytic(n, m, depth, batch, steps, lr, name, shared=False):
    """LISTA started at the analytic weights with learned numbers, then trained as a whole.

    shared: one pair of matrices for all layers, as in the first LISTA; then μ = 1 in all of them.
    """
    H, draw = noiseless(n, m)
    B, validation, models = analytic_weights(H), draw(1000, seeded(VALIDATION_SEED)), []
    for seed in SEEDS:
        thetas = Thetas((B, 1.0, 0.15), depth, tied=(0,), frozen=(0, 1) if shared else (0,))
        first = Unfolded(ista, thetas, H=H, part=with_back)
        fitted(first, draws(draw, batch, seed), [Stage(steps, 3e-2)], validation)
        model = LISTA(H, values(first), tied=(0, 1) if shared else (), back=B)
        resume = checkpoint(f"{name}_{seed}")
        stages = [Stage(steps, lr)]
        fitted(model, draws(draw, batch, seed + 200), stages, validation, 250, resume)
        resume.unlink(missing_ok=True)
        models.append(model)
    signals = f"fresh draws, {2 * steps * batch} signals"
    said_steps = f"{steps} for the numbers of the layers, {steps} for all, batch {batch}"
    return models, said(f"noiseless {n} x {m}", signals, said_steps)


def lista_100():
    return from_analytic(100, 200, 10, 128, 1200, 2e-5, "lista_100")


def lista_250():
    return from_analytic(250, 500, 16, 64, 1200, 5e-5, "lista_250", shared=True)


def lista_150():
    """Unfolded ISTA's 12 numbers first, then the matrices from there."""
    H, draw = noisy()
    models, validation = [], draw(1000, seeded(VALIDATION_SEED))
    for seed in SEEDS:
        first = Unfolded(ista, Thetas((1 / lipschitz(H).item(), 0.1), 6), H=H)
        fitted(first, draws(draw, 128, seed), [Stage(1000, 3e-2)], validation)
        model = LISTA(H, values(first))
        stages = [Stage(1500, 1e-4)]
        models.append(fitted(model, draws(draw, 128, seed + 200), stages, validation, 100))
    steps = "1000 for the numbers, 1500 for all, batch 128"
    return models, said("noisy 150 x 200", "fresh draws, 320 000 signals", steps)


def grid():
    """The settings of `scalars`: (algorithm, tied, depth, n_train); tied ones at 1,000 only."""
    for name, tied, K, n_train in product(("ista", "admm"), (False, True), DEPTHS, SIZES):
        if not tied or n_train == 1000:
            yield f"{name}_{'tied' if tied else 'layers'}_k{K}_n{n_train}", name, tied, K, n_train


def scalars():
    """Learned and unfolded ISTA and ADMM: 2, 3, 2K and 3K numbers, for depths and n_train."""
    H, draw = noisy()
    start = {"ista": (ista, (1 / lipschitz(H).item(), 0.1)), "admm": (admm, (0.05, 1.0, 0.02))}
    families = []
    for seed in SEEDS:
        models = {}
        for key, name, tied, K, n_train in grid():
            if seed != SEEDS[0] and K != 6 and n_train != 1000:
                continue  # the seeds' spread is measured along one row and one column of the grid
            algorithm, theta = start[name]
            (x, s), validation = training_set(draw, n_train, seed)
            model = Unfolded(algorithm, Thetas(theta, K, tied=tied), H=H)
            stages = [Stage(300 if tied else 800, 3e-2)]
            models[key] = fitted(model, batches(x, s, 128, seed), stages, validation)
        families.append(nn.ModuleDict(models))
    return families, said("noisy 150 x 200", list(SIZES), "800 (tied 300), batch 128")


def few_layers():
    """Unfolded ADMM with 3 and 5 layers, each trained for less than ten seconds on one core."""
    H, draw = noisy()
    families = []
    for seed in SEEDS:
        (x, s), validation = training_set(draw, 1000, seed)
        families.append(nn.ModuleDict({
            f"admm_k{K}": fitted(Unfolded(admm, Thetas((0.2, 1.0, 0.05), K), H=H),
                                 batches(x, s, 64, seed), [Stage(steps, 8e-2)], validation)
            for K, steps in ((3, 1500), (5, 800))
        }))  # fmt: skip
    return families, said("noisy 150 x 200", 1000, "1500 (3 layers), 800 (5 layers), batch 64")


def matrices():
    """LISTA, unfolded ADMM with matrices and a black box, six layers, for every n_train."""
    H, draw = noisy()
    mu = 1 / lipschitz(H).item()
    families = []
    for seed in SEEDS:
        models = {}
        for n_train in SIZES:
            (x, s), validation = training_set(draw, n_train, seed)
            steps = 300 if n_train < 10_000 else 1000

            def fit(model, steps, lr, x=x, s=s, validation=validation, seed=seed):
                return fitted(model, batches(x, s, 128, seed), [Stage(steps, lr)], validation)

            first = fit(Unfolded(ista, Thetas((mu, 0.1), 6), H=H), 800, 3e-2)
            models[f"lista_n{n_train}"] = fit(LISTA(H, values(first)), steps, 1e-4)
            first = fit(Unfolded(admm, Thetas((0.05, 1.0, 0.02), 6), H=H), 800, 3e-2)
            models[f"admm_n{n_train}"] = fit(UnfoldedADMM(H, values(first)), steps, 1e-4)
            black_box = mlp(150, 512, 512, 200, generator=seeded(seed + 100))
            models[f"mlp_n{n_train}"] = fit(black_box, 3 * steps, 1e-3)
        families.append(nn.ModuleDict(models))
    steps = "800 for the numbers, then 300 (1000 on 10,000); black box three times that; batch 128"
    return families, said("noisy 150 x 200", list(SIZES), steps)


def wrong_matrix(epsilon=0.3):
    """H + εE, where E has columns of norm about 1, as H has: what really measures in `mismatch`."""
    H, _ = noisy()
    E = torch.randn(H.shape, generator=seeded(MATRIX_SEED + 10)) / H.shape[0] ** 0.5
    return H + epsilon * E


def mismatch():
    """The data come from H + εE; the methods are told H, and the learned ones see the data."""
    H, _ = noisy()
    _, draw = noisy(H=wrong_matrix())
    mu, test = 1 / lipschitz(H).item(), mismatch_test()
    families, others = [], {}  # the matrices are too large to be shipped, only measured
    for seed in SEEDS:
        models = {}
        for n_train in (1000, 10_000):
            (x, s), validation = training_set(draw, n_train, seed)
            steps = 300 if n_train < 10_000 else 1500

            def fit(model, steps, lr, x=x, s=s, validation=validation, seed=seed):
                return fitted(model, batches(x, s, 128, seed), [Stage(steps, lr)], validation)

            first = fit(Unfolded(ista, Thetas((mu, 0.1), 6), H=H), 600, 3e-2)
            models[f"ista_n{n_train}"] = first
            wide = {"lista": fit(LISTA(H, values(first)), steps, 3e-4)}
            first = fit(Unfolded(admm, Thetas((0.05, 1.0, 0.02), 6), H=H), 600, 3e-2)
            models[f"admm_n{n_train}"] = first
            wide["matrices"] = fit(UnfoldedADMM(H, values(first)), steps, 3e-4)
            for name, network in wide.items():
                found = others.setdefault(f"{name}_n{n_train}", [])
                found.append(round(nmse_db(network, test), 3))
        families.append(nn.ModuleDict(models))
    steps = "600 for the numbers, then 300 (1500 on 10,000), batch 128"
    facts = said("noisy 150 x 200, H wrong by 0.3", [1000, 10_000], steps)
    return families, facts | {"not_shipped_nmse_db_by_seed": others}


def ecg():
    """The same strategies on heartbeats: ten layers, trained on windows of one beat."""
    H, draw, coefficients = heartbeats()
    mu = 1 / lipschitz(H).item()
    families = []
    for seed in SEEDS:
        validation = draw(200, seeded(VALIDATION_SEED), of=coefficients[1])

        def fit(model, stages, validation=validation, seed=seed):
            return fitted(model, draws(draw, 64, seed), stages, validation)

        black_box = mlp(38, 256, 256, 128, generator=seeded(seed + 100))
        families.append(nn.ModuleDict({
            "ista_layers": fit(Unfolded(ista, Thetas((mu, 0.3), 10), H=H), [Stage(300, 3e-2)]),
            "admm_layers": fit(Unfolded(admm, Thetas((0.05, 1.0, 0.1), 10), H=H),
                               [Stage(300, 3e-2)]),
            "lista": fit(LISTA(H, (mu, 0.2), 10, tied=(0, 1)), [Stage(1500, 1e-3)]),
            "admm": fit(UnfoldedADMM(H, (0.05, 1.0, 0.1), 10, tied=(0, 1)), [Stage(1000, 1e-3)]),
            "mlp": fit(black_box, [Stage(1500, 1e-3)]),
        }))  # fmt: skip
    steps = "300 for numbers, 1500 (LISTA, black box), 1000 (ADMM), batch 64"
    return families, said("ECG windows of 128, 30 %, 20 dB", "221 windows", steps)


# ---- The same models before training, to be filled ---------------------------------------------

ONE = {"ista": (1.0, 1.0), "admm": (1.0, 1.0, 1.0)}


def blank_lista(n, m, depth, tied=()):
    return lambda: LISTA(torch.zeros(n, m), ONE["ista"], depth, tied=tied)


def numbers(name, depth, H, tied=False):
    """Learned or unfolded ISTA or ADMM, before training."""
    return Unfolded({"ista": ista, "admm": admm}[name], Thetas(ONE[name], depth, tied=tied), H=H)


def blank_scalars():
    H = torch.zeros(150, 200)
    return nn.ModuleDict({key: numbers(name, K, H, tied) for key, name, tied, K, _ in grid()})


def blank_few_layers():
    H = torch.zeros(150, 200)
    return nn.ModuleDict({f"admm_k{K}": numbers("admm", K, H) for K in (3, 5)})


def blank_matrices():
    H, models = torch.zeros(150, 200), {}
    for n_train in SIZES:
        models[f"lista_n{n_train}"] = LISTA(H, ONE["ista"], 6)
        models[f"admm_n{n_train}"] = UnfoldedADMM(H, ONE["admm"], 6)
        models[f"mlp_n{n_train}"] = mlp(150, 512, 512, 200)
    return nn.ModuleDict(models)


def blank_mismatch():
    H, models = torch.zeros(150, 200), {}
    for n_train in (1000, 10_000):
        models[f"ista_n{n_train}"] = numbers("ista", 6, H)
        models[f"admm_n{n_train}"] = numbers("admm", 6, H)
    return nn.ModuleDict(models)


def blank_ecg():
    H = torch.zeros(38, 128)
    return nn.ModuleDict({
        "ista_layers": numbers("ista", 10, H),
        "admm_layers": numbers("admm", 10, H),
        "lista": LISTA(H, ONE["ista"], 10, tied=(0, 1)),
        "admm": UnfoldedADMM(H, ONE["admm"], 10, tied=(0, 1)),
        "mlp": mlp(38, 256, 256, 128),
    })  # fmt: skip


# ---- The fixed test sets: 2,000 fresh signals, or every window of the last beat -----------------


def noiseless_test(n):
    return lambda: noiseless(n, 2 * n)[1](2000, seeded(TEST_SEED))


def noisy_test(H=None):
    return noisy(H=H)[1](2000, seeded(TEST_SEED))


def mismatch_test():
    return noisy_test(wrong_matrix())


def heartbeat_test():
    H, _, (_, _, coefficients) = heartbeats()
    noise = torch.randn(len(coefficients), 38, 1, generator=seeded(TEST_SEED)).float()
    return observed(coefficients, H, noise, 20.0), coefficients


FILES = {
    "ecg": File(ecg, blank_ecg, heartbeat_test),
    "lista_minute": File(lista_minute, blank_lista(100, 200, 10), noiseless_test(100)),
    "lista_100": File(lista_100, blank_lista(100, 200, 10), noiseless_test(100)),
    "lista_150": File(lista_150, blank_lista(150, 200, 6), noisy_test),
    "lista_250": File(lista_250, blank_lista(250, 500, 16, (0, 1)), noiseless_test(250)),
    "scalars": File(scalars, blank_scalars, noisy_test),
    "few_layers": File(few_layers, blank_few_layers, noisy_test),
    "matrices": File(matrices, blank_matrices, noisy_test),
    "mismatch": File(mismatch, blank_mismatch, mismatch_test),
}
