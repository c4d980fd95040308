"""Recipes of chapter 06: low rank plus sparse, unfolded, with convolutions, and a black box."""

import torch
from torch import nn

from mbdl_course import datasets
from mbdl_course.learn import Stage, batches, seeded, squared_error, training
from mbdl_course.lowrank import (
    CORONA,
    Both,
    MovieCNN,
    ista,
    observed,
    separation_db,
    street,
    ultrasound,
    white,
)
from mbdl_course.unfold import Thetas, Unfolded

from .common import SEEDS, TEST_SEED, VALIDATION_SEED, File, said, values

DEPTHS, MOVIES = (1, 3, 5, 7), (25, 100, 400)  # layers; n_train, for three layers
CLUTTER_DB, SNR_DB = 0.0, 26.0  # noise of 0.05, as in the reduced study this one follows


def start(depth, clutter_db=CLUTTER_DB):
    """(μ, ρ_S, ρ_L) of each layer to start from: S waits for one step, until there is an L.

    One layer cannot wait: it starts from a small step. Tissue stronger than S needs a threshold in
    proportion before S may start, and larger ones for L.
    """
    if depth == 1:
        return [(0.1, 0.05, 3.0)]
    if clutter_db <= 0:
        return [(1.0, 5.0, 3.0)] + [(1.0, 0.3, 3.0)] * (depth - 1)
    first = (1.0, 5.0 * 10 ** (clutter_db / 20), 12.0)
    return [first, *[(1.0, 0.3, 12.0)] * (depth - 2), (1.0, 0.3, 6.0)]


# ---- Problems: draw(count, generator) -> (x, Parts) --------------------------------------------


def bubbles(count, generator, clutter_db=CLUTTER_DB, snr_db=SNR_DB, motion=0.1, size=16, frames=12):
    """Movies of 16 x 16 pixels and 12 frames, complex."""
    parts = ultrasound(count, generator, size, frames, motion=motion)
    return observed(parts, white(count, generator, size, frames), clutter_db, snr_db)


def passers(count, generator, of="train", snr_db=SNR_DB):
    """Real movies before a photograph: "train" and "validation" are two sides of one, "test" is
    another photograph. The photographs are halved, by means over 2 x 2 pixels."""
    photo = datasets.photograph("camera" if of == "test" else "ascent")
    photo = nn.functional.avg_pool2d(photo[None, None], 2)[0, 0]
    photo = {"train": photo[:, :180], "validation": photo[:, 180:]}.get(of, photo)
    parts = street(count, photo, generator, dtype=torch.float32)
    return observed(parts, white(count, generator, dtype=torch.float32), snr_db=snr_db)


# ---- Recipes -----------------------------------------------------------------------------------


def error_db(predict, data):
    """NMSE of S in dB of predict(x) against data (x, S)."""
    with torch.no_grad():
        return separation_db(predict(data[0]), data[1]).item()


def separating(network, data, held_out, stage, seed, both=True):
    """An iterator of training: the loss (13) on S and L, or on S only; validated on S.

    The norm of the gradient is clipped: one large step can raise β_S above every row, and a network
    that answers zero has no gradient to come back.
    """
    x, parts = data
    target = torch.stack([*parts], 1) if both else parts.S
    return training(
        Both(network) if both else network, batches(x, target, min(10, len(x)), seed),
        squared_error, [stage], clip=1.0, every=50,
        validate=lambda _: error_db(network, (held_out[0], held_out[1].S)),
    )  # fmt: skip


def separated(network, data, held_out, stage, seed, both=True):
    """The network trained to the end, at its best validated state."""
    for _ in separating(network, data, held_out, stage, seed, both):
        pass
    return network


def unfolded(depth, data, held_out, seed, steps=400, dtype=torch.complex64):
    """The 3 depth numbers of ISTA, trained; and CORONA, filled with them and trained on."""
    only = Unfolded(ista, Thetas(start(depth)))
    rate = 5e-2 if depth > 1 else 5e-3  # of one layer, larger steps end at zero
    separated(only, data, held_out, Stage(300, rate), seed)
    layers = CORONA(values(only), dtype=dtype)
    return only, separated(layers, data, held_out, Stage(steps, 3e-3), seed + 200)


def live(depth, data, held_out, seed, clutter_db=CLUTTER_DB, steps=(100, 50)):
    """Thresholds, then CORONA filled with them, in seconds: one iterator of training."""
    only, total = Unfolded(ista, Thetas(start(depth, clutter_db))), sum(steps)
    stage = Stage(steps[0], 5e-2 if depth > 1 else 5e-3)
    for p in separating(only, data, held_out, stage, seed):
        yield p._replace(steps=total)
    layers = CORONA(values(only), dtype=data[0].dtype)
    rate = 2e-3 / max(1, 10 ** (clutter_db / 20))  # what a kernel lets slip is multiplied by tissue
    for p in separating(layers, data, held_out, Stage(steps[1], rate), seed + 1):
        yield p._replace(step=steps[0] + p.step, steps=total)


def black_box(data, held_out, seed, dtype=torch.complex64):
    """A residual CNN, for as long as it improves."""
    network = MovieCNN(12, 16, dtype=dtype, generator=seeded(seed + 100))
    return separated(network, data, held_out, Stage(2000, 3e-3, patience=8), seed, both=False)


def movies(n_train, seed, draw=bubbles):
    """n_train movies to fit, and a quarter more to stop by."""
    generator = seeded(seed)
    return tuple(draw(count, generator) for count in (n_train, max(n_train // 4, 5)))


def corona():
    """Thresholds only and CORONA of several depths; both and a black box for every n_train."""
    families = []
    for seed in SEEDS:
        models = {}
        for n in MOVIES:
            data = movies(n, seed)
            for K in DEPTHS if n == 400 else (3,):
                only, layers = unfolded(K, *data, seed)
                models |= {f"thresholds_k{K}_n{n}": only, f"corona_k{K}_n{n}": layers}
            models[f"cnn_n{n}"] = black_box(*data, seed)
        families.append(nn.ModuleDict(models))
    steps = "300 (thresholds), then 400 (CORONA); up to 2000 (black box); batch 10"
    return families, said("ultrasound 16 x 16 x 12, clutter 0 dB, SNR 26 dB", list(MOVIES), steps)


def corona_street():
    """The same three kinds on real movies: trained before one photograph, tested before another."""
    families = []
    for seed in SEEDS:
        data = passers(400, seeded(seed)), passers(100, seeded(VALIDATION_SEED), "validation")
        only = separated(Unfolded(ista, Thetas(start(3))), *data, Stage(300, 5e-2), seed)
        layers = CORONA((0.5, 0.3, 1.0), 3, dtype=torch.float32)  # here S need not wait
        separated(layers, *data, Stage(600, 2e-2), seed + 200)
        cnn = black_box(*data, seed, dtype=torch.float32)
        families.append(nn.ModuleDict({"thresholds": only, "corona": layers, "cnn": cnn}))
    steps = "300 (thresholds), 600 (CORONA), up to 2000 (black box); batch 10"
    return families, said("movies before a photograph, 16 x 16 x 12, SNR 26 dB", 400, steps)


def blank_corona():
    models = {}
    for n in MOVIES:
        for K in DEPTHS if n == 400 else (3,):
            models[f"thresholds_k{K}_n{n}"] = Unfolded(ista, Thetas(start(K)))
            models[f"corona_k{K}_n{n}"] = CORONA(start(K))
        models[f"cnn_n{n}"] = MovieCNN(12, 16)
    return nn.ModuleDict(models)


def blank_street():
    return nn.ModuleDict({
        "thresholds": Unfolded(ista, Thetas(start(3))),
        "corona": CORONA(start(3), dtype=torch.float32),
        "cnn": MovieCNN(12, 16, dtype=torch.float32),
    })  # fmt: skip


def movies_test():
    """The fixed test set (x, S): 500 movies."""
    x, parts = bubbles(500, seeded(TEST_SEED))
    return x, parts.S


def street_test():
    x, parts = passers(500, seeded(TEST_SEED), "test")
    return x, parts.S


FILES = {
    "corona": File(corona, blank_corona, movies_test, error_db),
    "corona_street": File(corona_street, blank_street, street_test, error_db),
}
