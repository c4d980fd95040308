"""Recipes of chapter 05: one algorithm, many parameterisations, from the same start."""

import torch
from torch import nn

from mbdl_course.learn import Stage, batches, draws, seeded
from mbdl_course.networks import mlp
from mbdl_course.prox import keep_largest
from mbdl_course.sparse import (
    ALISTA,
    LISTA,
    LISTA_CP,
    analytic_weights,
    fista,
    gaussian_matrix,
    greedy_descent,
    ista,
    learned_gram,
    lipschitz,
    matrices,
    observed,
    sparse_signals,
    support_schedule,
    with_back,
)  # fmt: skip
from mbdl_course.unfold import Fixed, Thetas, Unfolded

from .common import (
    MATRIX_SEED,
    SEEDS,
    TEST_SEED,
    VALIDATION_SEED,
    File,
    fitted,
    nmse_db,
    said,
    training_set,
    values,
)  # fmt: skip
from .sparse import noiseless

DEPTH, COORDINATES = 10, 60  # layers; steps of coordinate descent


# ---- Problems -----------------------------------------------------------------------------------


def ill_conditioned(n=100, m=200, condition=50.0):
    """`noiseless`, but the singular values of H fall geometrically by the factor `condition`.

    The columns are scaled to norm 1 afterwards, as everywhere in this literature.
    """
    U, _, Vh = torch.linalg.svd(gaussian_matrix(n, m, seeded(MATRIX_SEED)), full_matrices=False)
    H = U @ torch.diag(condition ** -torch.linspace(0, 1, n, dtype=U.dtype)) @ Vh
    H = (H / H.norm(dim=0)).float()
    return H, drawn(H)


def drawn(H, snr_db=None, density=0.1):
    """draw(size, generator) -> (x, s): Bernoulli-Gaussian signals seen through H."""

    def draw(size, generator):
        kind = {"generator": generator, "dtype": torch.float32}
        s = sparse_signals(size, H.shape[1], density=density, **kind)
        if snr_db is None:
            return H @ s, s
        return observed(s, H, torch.randn(size, H.shape[0], 1, **kind), snr_db), s

    return draw


def small():
    """20 measurements of 40 unknowns, 3 of them non-zero, 20 dB: cheap enough to train often."""
    H = gaussian_matrix(20, 40, seeded(MATRIX_SEED), dtype=torch.float32)

    def draw(size, generator):
        kind = {"generator": generator, "dtype": torch.float32}
        s = sparse_signals(size, 40, sparsity=3, **kind)
        return observed(s, H, torch.randn(size, 20, 1, **kind), 20.0), s

    return H, draw


# ---- The family, all from the values of the model, all trained alike ----------------------------


def geometric(depth, first=0.45, ratio=0.75):
    """(μ, ρ) = (1, first · ratioᵏ): thresholds that fall as fast as the error is meant to."""
    return [(1.0, first * ratio**k) for k in range(depth)]


def random_matrices(H, depth, seed):
    """LISTA's layers drawn at random: what an ordinary network would start from."""
    n, m = H.shape
    g = seeded(seed)
    layers = [
        (torch.randn(m, n, generator=g) / n**0.5, torch.randn(m, m, generator=g) / m**0.5, 0.1)
        for _ in range(depth)
    ]
    return Unfolded(ista, Thetas(layers), H=H, part=matrices)


def family(H, L, seed=0):
    """{name: network at the start}: the same ten layers of ISTA under different names."""
    n, m = H.shape
    theta, kept, K = (1 / L, 0.4), support_schedule(m, DEPTH), DEPTH
    step = (H.mT / L, torch.eye(m) - H.mT @ H / L)
    momentum = [torch.tensor([k / (k + 3)]) for k in range(K)]
    gram = torch.eye(m) - H.mT @ H
    return {
        "numbers": Unfolded(ista, Thetas(theta, K), H=H),
        "momentum": Unfolded(fista, Thetas([(*theta, g) for g in momentum]), H=H),
        "lista": LISTA(H, theta, K),
        "lista_tied": LISTA(H, theta, K, tied=(0, 1)),
        "lista_random": random_matrices(H, K, seed + 100),
        "cp": LISTA_CP(H, theta, K),
        "cpss": LISTA_CP(H, theta, K, kept=kept),
        "cpss_layerwise": LISTA_CP(H, theta, K, kept=kept),
        "lista_layerwise": LISTA(H, theta, K),
        "lista_short": LISTA(H, theta, K),
        "cp_short": LISTA_CP(H, theta, K),
        "alista": ALISTA(H, (1.0, 0.2), K),
        "alista_ss": ALISTA(H, (1.0, 0.2), K, kept=kept),
        "iht": Unfolded(ista, Thetas((*step, Fixed(26)), K, tied=(0, 1)), H=H, part=matrices,
                        shrink=keep_largest),
        "coordinates": Unfolded(greedy_descent, Thetas((gram, 0.1), COORDINATES, tied=(0,)), H=H,
                                part=learned_gram),
    }  # fmt: skip


SCHEDULES = {  # what is not named here: 1,500 steps end to end
    "numbers": [Stage(600, 2e-2)],
    "momentum": [Stage(600, 2e-2)],
    "alista": [Stage(600, 2e-2)],
    "alista_ss": [Stage(600, 2e-2)],
    "coordinates": [Stage(250, 2e-3)],
    "lista_random": [Stage(600, 1e-3)],
    "lista_tied": [Stage(1000, 2e-3)],
    "lista_short": [Stage(600, 1e-3)],
    "cp_short": [Stage(600, 1e-3)],
    "cpss_layerwise": [*(Stage(90, 2e-3, True, k + 1) for k in range(DEPTH)), Stage(600, 1e-3)],
    "lista_layerwise": [*(Stage(90, 2e-3, True, k + 1) for k in range(DEPTH)), Stage(600, 1e-3)],
}


SHIPPED = ("numbers", "momentum", "lista_tied", "cp", "cpss", "alista", "alista_ss", "iht",
           "coordinates")  # fmt: skip


def family_100():
    H, draw = noiseless(100, 200)
    L, validation, families = lipschitz(H).item(), draw(1000, seeded(VALIDATION_SEED)), []
    test, others = draw(2000, seeded(TEST_SEED)), {}  # too large to be shipped, only measured
    for seed in SEEDS:
        models = family(H, L, seed)
        for name, model in models.items():
            stages = SCHEDULES.get(name, [Stage(1500, 2e-3)])
            fitted(model, draws(draw, 128, seed), stages, validation, 100)
            if name not in SHIPPED:
                others.setdefault(name, []).append(round(nmse_db(model, test), 3))
        families.append(nn.ModuleDict({name: models[name] for name in SHIPPED}))
    steps = "600 for numbers, 250 for coordinates, 1000 to 1500 for matrices, batch 128"
    facts = said("noiseless 100 x 200", "fresh draws, at most 192 000 signals", steps)
    return families, facts | {"not_shipped_nmse_db_by_seed": others}


ILL = ("cp", "cpss", "alista_ss")


def ill_100():
    """The family where H is ill-conditioned: a step of 1/L moves its weak directions too little."""
    H, draw = ill_conditioned()
    L, validation, families = lipschitz(H).item(), draw(1000, seeded(VALIDATION_SEED)), []
    test, others = draw(2000, seeded(TEST_SEED)), {}
    for seed in SEEDS:
        models = family(H, L, seed)
        models = {name: models[name] for name in ("lista", *ILL)}
        for name, model in models.items():
            stages = SCHEDULES.get(name, [Stage(1000, 2e-3)])
            fitted(model, draws(draw, 128, seed), stages, validation, 100)
        others.setdefault("lista", []).append(round(nmse_db(models.pop("lista"), test), 3))
        families.append(nn.ModuleDict(models))
    steps = "600 for numbers, 1000 for matrices, batch 128"
    facts = said("noiseless 100 x 200, condition 50", "fresh draws", steps)
    return families, facts | {"not_shipped_nmse_db_by_seed": others}


# ---- 250 x 500, sixteen layers ------------------------------------------------------------------


def large(H, noisy):
    """ALISTA with support selection; LISTA-CPSS, one matrix for all layers; noisy: LISTA too."""
    kept, B = support_schedule(H.shape[1], 16), analytic_weights(H)
    theta = [(mu, max(rho, 0.1 if noisy else 0.0)) for mu, rho in geometric(16, 0.35)]
    models = {
        "alista": ALISTA(H, theta, kept=kept),
        "cpss": ALISTA(H, theta, kept=kept, learned=True),
    }
    return models | ({"lista": LISTA(H, theta, tied=(0, 1), back=B)} if noisy else {})


def trained_large(snr_db, alista):
    """ALISTA trained by its stages; CPSS, which learns the matrix too, goes on from there."""
    H, _ = noiseless(250, 500)
    draw, families = drawn(H, snr_db), []
    validation = draw(1000, seeded(VALIDATION_SEED))
    kept, B = support_schedule(500, 16), analytic_weights(H)
    for seed in SEEDS:
        models = large(H, snr_db is not None)
        fitted(models["alista"], draws(draw, 64, seed), alista, validation, 100)
        # started at the same values as ALISTA it stays behind it
        models["cpss"] = ALISTA(H, values(models["alista"]), kept=kept, learned=True)
        stages = [Stage(200, 2e-5)]
        fitted(models["cpss"], draws(draw, 64, seed + 200), stages, validation, 50)
        if "lista" in models:
            numbers = Unfolded(ista, Thetas((B, 1.0, 0.15), 16, tied=(0,), frozen=(0, 1)), H=H,
                               part=with_back)  # fmt: skip
            fitted(numbers, draws(draw, 64, seed), [Stage(300, 2e-2)], validation, 100)
            models["lista"] = LISTA(H, values(numbers), tied=(0, 1), back=B)
            stages = [Stage(600, 3e-4)]
            fitted(models["lista"], draws(draw, 64, seed + 200), stages, validation, 50)
        families.append(nn.ModuleDict(models))
    return families


def family_250():
    stages = [*(Stage(60, 2e-2, True, k + 1) for k in range(16)), Stage(800, 5e-3)]
    steps = "ALISTA: 60 a layer, then 800; CPSS 200 from there; batch 64"
    return trained_large(None, stages), said("noiseless 250 x 500", "fresh draws", steps)


def noisy_250():
    steps = "ALISTA: 300; CPSS 200 from there; LISTA 300 for its numbers, then 600; batch 64"
    stages = [Stage(300, 2e-2)]
    return trained_large(20.0, stages), said("250 x 500, 20 dB", "fresh draws", steps)


# ---- Bias and variance: the same training, again and again on other sets ------------------------

VARIANCE_SIZES = (20, 200, 2000, 20_000)


def unfolded_small(H, L):
    return {
        "numbers": Unfolded(ista, Thetas((1 / L, 0.2), 5), H=H),
        "lista": LISTA(H, (1 / L, 0.2), 5),
        "mlp": mlp(20, 96, 96, 40, generator=seeded(SEEDS[0] + 100)),
    }


TRAINED = {"numbers": Stage(400, 1e-2), "lista": Stage(1200, 1e-3), "mlp": Stage(4000, 2e-3)}


def variance():
    """Three kinds of estimators, each trained on five sets of each size; all are shipped."""
    H, draw = small()
    L, models = lipschitz(H).item(), {}
    for n_train in VARIANCE_SIZES:
        for seed in SEEDS:
            (x, s), validation = training_set(draw, n_train, seed)
            for name, model in unfolded_small(H, L).items():
                stages = [TRAINED[name]]
                source = batches(x, s, 64, seed)
                models[f"{name}_n{n_train}_{seed}"] = fitted(model, source, stages, validation, 25)
    facts = said("20 x 40, 3 non-zeros, 20 dB", list(VARIANCE_SIZES), "400, 1200, 4000; batch 64")
    return [nn.ModuleDict(models)], facts | {"seeds": list(SEEDS)}


# ---- Untrained, and where they are tested -------------------------------------------------------


def blank(names):
    def filled():
        models = family(noiseless(100, 200)[0], 1.0)
        return nn.ModuleDict({name: models[name] for name in names})

    return filled


def blank_large(noisy):
    return lambda: nn.ModuleDict(large(noiseless(250, 500)[0], noisy))


def blank_variance():
    H = torch.eye(20, 40)  # one for all: a tensor that is shared is stored once
    return nn.ModuleDict({
        f"{name}_n{n_train}_{seed}": model
        for n_train in VARIANCE_SIZES
        for seed in SEEDS
        for name, model in unfolded_small(H, 1.0).items()
    })  # fmt: skip


def noisy_large():
    return drawn(noiseless(250, 500)[0], 20.0)


def tested(draw):
    return lambda: draw()(2000, seeded(TEST_SEED))


FILES = {
    "family_100": File(family_100, blank(SHIPPED), tested(lambda: noiseless(100, 200)[1])),
    "ill_100": File(ill_100, blank(ILL), tested(lambda: ill_conditioned()[1])),
    "family_250": File(family_250, blank_large(False), tested(lambda: noiseless(250, 500)[1])),
    "noisy_250": File(noisy_250, blank_large(True), tested(noisy_large)),
    "variance": File(variance, blank_variance, tested(lambda: small()[1])),
}
