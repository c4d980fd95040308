"""Recipes of chapter 13: covariances learned for coherent sources, and where else they may help."""

import math
from functools import partial
from itertools import cycle

import torch

from mbdl_course.doa import (
    CovarianceCNN,
    DeepAugmentedMUSIC,
    Dense,
    EncoderDecoder,
    LeakyReLU,
    SubspaceNet,
    calibrated,
    coloured,
    disturbed,
    esprit,
    maximum_likelihood,
    mean_rmspe,
    music,
    observed,
    rmspe,
    root_music,
    sample_covariance,
    scenes,
    through,
    uniform_linear,
)
from mbdl_course.learn import Stage, batches, seeded, training

from .common import SEEDS, TEST_SEED, VALIDATION_SEED, File, said

SENSORS, SNAPSHOTS = 8, 100
LINE = uniform_linear(SENSORS, dtype=torch.float32)
COUNTS, SHORT = (2, 3, 4, 5), (2, 5, 10, 20)
FAR = 20_000  # seeds from here on are those of recipes that draw several sets
POSITION, GAIN_DB, PHASE = 0.05, 1.0, 0.2  # wavelengths, dB, radians: deviations of each sensor

# ---- Problems: draw(count, seed) -> (x, doa) ---------------------------------------------------


def coherent(count, seed, sources=3, snapshots=SNAPSHOTS, snr_db=10.0, phases=False):
    """One waveform from all directions: in phase, or turned by a phase of each path's own."""
    generator = seeded(seed)
    scene = scenes(count, sources, LINE, snapshots, generator)
    turned = torch.rand(count, sources, generator=generator) * 2 * math.pi if phases else None
    return observed(scene, LINE, snr_db, 1.0, turned), scene.doa


def apart(count, seed, sources=3, snapshots=SNAPSHOTS, snr_db=10.0, pole=0.0):
    """Independent sources, white or coloured."""
    scene = scenes(count, sources, LINE, snapshots, seeded(seed))
    if pole:
        scene = scene._replace(waveforms=coloured(scene.waveforms, pole))
    return observed(scene, LINE, snr_db), scene.doa


def one_array():
    """The array that every scene of `bent` sees: wrong by POSITION, GAIN_DB and PHASE."""
    noise = torch.randn(SENSORS, 4, generator=seeded(13000))
    return disturbed(LINE, noise, POSITION, GAIN_DB, PHASE)


def bent(count, seed, array=None):
    """Independent sources at one wrong array, or at a wrong one for each scene (array = "each")."""
    generator = seeded(seed)
    scene = scenes(count, 3, LINE, SNAPSHOTS, generator)
    if array == "each":
        noise = torch.randn(count, SENSORS, 4, generator=generator)
        return observed(scene, disturbed(LINE, noise, POSITION, GAIN_DB, PHASE), 10.0), scene.doa
    return observed(scene, one_array(), 10.0), scene.doa


# ---- Recipes -----------------------------------------------------------------------------------


def surrogate(seed=None, lags=1):
    """SubspaceNet that starts as the sample covariance: 128 numbers in each of two hidden layers.

    In a published network's place: a fully connected one learns the same a dozen times sooner.
    """
    generator = None if seed is None else seeded(seed + 100)
    return SubspaceNet(Dense(SENSORS, lags, generator=generator), lags)


def published(seed=None):
    """SubspaceNet as published: convolutions of eight lags, 41,761 numbers, no way around them."""
    generator = None if seed is None else seeded(seed + 100)
    return SubspaceNet(EncoderDecoder(8, generator=generator), 8, skip=False)


def deep_root(seed=None):
    """Deep Root-MUSIC's covariance: half as wide, 21,217 numbers, to be trained by Root-MUSIC."""
    generator = None if seed is None else seeded(seed + 100)
    body = EncoderDecoder(8, activation=LeakyReLU(), factor=1, generator=generator)
    return SubspaceNet(body, 8, skip=False)


def taught(model, sets, steps, seed, held_out=None, loss=None, lr=1e-3, every=None):
    """An iterator of training on sets (x, doa) in turn, by ESPRIT unless another loss is given."""
    loss = loss or through(esprit)
    turns = cycle([batches(*data, 128, seed + 200) for data in sets])
    source = (next(one) for one in turns)

    def validate(predict):
        return loss(predict(held_out[0]), held_out[1]).item()

    return training(model, source, loss, [Stage(steps, lr)], clip=1.0, every=every or steps // 5,
                    validate=None if held_out is None else validate)  # fmt: skip


def learned(*arguments, **options):
    """The module trained to the end, at its best validated state."""
    *_, p = taught(*arguments, **options)
    return p.model


def error_db(covariance, data, loss=None):
    """The mean RMSPE of ESPRIT on a learned covariance, 20 log10 of radians."""
    with torch.no_grad():
        return 20 * math.log10((loss or through(esprit))(covariance(data[0]), data[1]).item())


def median_rmspe(R, doa):
    """The median over the scenes where `through(esprit)` takes the mean."""
    return rmspe(esprit(R, doa.shape[-1]), doa).median()


def file(make, problem, n_train, steps, draw):
    """A File: make(seed) from every seed, its figure on 1,000 scenes of draw."""
    return File(
        lambda: ([make(seed) for seed in SEEDS], said(problem, n_train, steps)),
        surrogate, lambda: draw(1000, TEST_SEED), error_db,
    )  # fmt: skip


def in_phase(seed, n_train=20_000, steps=1500):
    return learned(surrogate(seed), [coherent(n_train, seed)], steps, seed,
                   coherent(1000, VALIDATION_SEED))  # fmt: skip


def mixed(seed):
    sets = [coherent(20_000, FAR + 10 * seed + m, m, phases=True) for m in COUNTS]
    return learned(surrogate(seed), sets, 6000, seed, coherent(1000, VALIDATION_SEED, phases=True))


def few(seed):
    sets = [apart(10_000, FAR + 10 * seed + k, snapshots=T) for k, T in enumerate(SHORT)]
    return learned(surrogate(seed), sets, 4000, seed, apart(1000, VALIDATION_SEED, snapshots=5))


def at_one_array(seed, array=None):
    data, held_out = bent(20_000, seed, array), bent(1000, VALIDATION_SEED, array)
    return learned(surrogate(seed), [data], 3000, seed, held_out)


def cnn(seed):
    return CovarianceCNN(SENSORS, 3, generator=seeded(seed + 100))


RIVALS = {  # name: (module, loss, steps, learning rate, training sizes)
    "subspacenet": (surrogate, through(esprit), 1500, 1e-3, (1000, 5000, 20_000)),
    "cnn": (cnn, mean_rmspe, 1500, 1e-3, (1000, 5000, 20_000)),
    "cnn_long": (cnn, mean_rmspe, 6000, 1e-3, (20_000,)),
    "augmented": (lambda seed: DeepAugmentedMUSIC(SENSORS, 3, generator=seeded(seed + 100)),
                  mean_rmspe, 1500, 3e-3, (1000, 5000, 20_000)),
    "root_head": (surrogate, through(root_music), 1500, 1e-3, (20_000,)),
    "published": (published, through(esprit), 1000, 1e-3, (20_000,)),
    "deep_root": (deep_root, through(root_music), 1000, 1e-3, (20_000,)),
}  # fmt: skip


def rivals():
    """{name_n: dB of each seed} of three coherent sources in phase; too much to be shipped."""
    held_out, test, found = coherent(1000, VALIDATION_SEED), coherent(1000, TEST_SEED), {}
    for name, (make, loss, steps, lr, sizes) in RIVALS.items():
        for seed in SEEDS:
            data = coherent(sizes[-1], seed)
            for n in sizes:
                some = [tuple(v[:n] for v in data)]
                model = learned(make(seed), some, steps, seed, held_out, loss, lr)
                found.setdefault(f"{name}_n{n}", []).append(round(error_db(model, test, loss), 2))
    return found


def single():
    """{case: dB of each seed} of networks trained on one number of coherent sources and used on
    others, or for coloured signals at −10 dB with one lag and with eight."""
    found = {}
    for seed in SEEDS:
        for m in (3, 5):
            data, held_out = (coherent(n, k, m, phases=True)
                              for n, k in ((40_000, seed), (1000, VALIDATION_SEED)))  # fmt: skip
            model = learned(surrogate(seed), [data], 3000, seed, held_out)
            for used in COUNTS:
                value = error_db(model, coherent(1000, TEST_SEED, used, phases=True))
                found.setdefault(f"only_{m}_used_{used}", []).append(round(value, 2))
        for lags in (1, 8):
            data, held_out, test = (
                apart(n, k, snr_db=-10.0, pole=0.95)
                for n, k in ((20_000, seed), (1000, VALIDATION_SEED), (1000, TEST_SEED))
            )
            model = learned(surrogate(seed, lags), [data], 2000, seed, held_out)
            for name, loss in (("", None), ("_median", median_rmspe)):
                value = error_db(model, test, loss)
                found.setdefault(f"lags_{lags}{name}", []).append(round(value, 2))
    return found


# ---- What the chapter shows of each network ----------------------------------------------------

TEST_SETS = {  # file: () -> {case: (x, doa)}
    "subspacenet": lambda: {
        "test": coherent(1000, TEST_SEED),
        "first_500": tuple(v[:500] for v in coherent(1000, TEST_SEED)),
        "any_phase": coherent(1000, 13150, phases=True),
        **{f"snr_{v}": coherent(1000, 13200, snr_db=float(v)) for v in (10, 20)}},
    "subspacenet_mixed": lambda: {
        f"sources_{m}": coherent(1000, 13160 + m, m, phases=True) for m in COUNTS},
    "subspacenet_few": lambda: {
        f"snapshots_{T}": apart(1000, 13180 + T, snapshots=T) for T in (*SHORT, 100)},
    "subspacenet_array": lambda: {"test": bent(1000, TEST_SEED)},
    "subspacenet_each": lambda: {"test": bent(1000, TEST_SEED, "each")},
}  # fmt: skip


def likely(x, sources=3, **options):
    """Maximum likelihood in double precision: its steps need it, whatever x comes in."""
    R = sample_covariance(x.to(torch.complex128))
    return maximum_likelihood(R, sources, **options).to(x.real.dtype)


def fitted_array():
    """`calibrated` on a hundred scenes of known directions, of one_array()."""
    x, doa = bent(100, 13190)
    return calibrated(sample_covariance(x), doa, LINE)


def across(doa):
    """Scenes with a source near each end: the sines of −90° and 90° are one direction to LINE."""
    s = doa.sin()
    return s[:, 0] + 2 - s[:, -1] < 0.1


def told(error, doa):
    """{figure: dB} of the RMSPE of each scene: over all, across the ends, and elsewhere."""
    a = across(doa)
    parts = {"mean": error.mean(), "median": error.median(), "across": error[a].mean(),
             "elsewhere": error[~a].mean(), "elsewhere_median": error[~a].median()}  # fmt: skip
    return {name: round(20 * math.log10(value), 3) for name, value in parts.items()}


def shown(name, model, finish=None):
    """{case_part_figure: dB}: ESPRIT on a learned covariance and, where `finish` is given, the
    likelihood started there."""
    found = {}
    for case, (x, doa) in TEST_SETS[name]().items():
        m = doa.shape[-1]
        with torch.no_grad():
            parts = {"net": esprit(model(x), m)}
        if finish:
            parts["both"] = finish(x, m, start=parts["net"])
        for part, doa_hat in parts.items():
            figures = told(rmspe(doa_hat, doa), doa)
            found |= {f"{case}_{part}_{figure}": v for figure, v in figures.items()}
    return found


def by_music(model):
    """The covariance that ESPRIT trained, read by the minima of MUSIC's spectrum instead."""
    return {"music_n20000": round(error_db(model, coherent(1000, TEST_SEED), through(music)), 2)}


def on_others(model):
    """The test sets of `single`, for the network trained on all numbers of sources."""
    return {f"all_used_{m}": round(error_db(model, coherent(1000, TEST_SEED, m, phases=True)), 2)
            for m in COUNTS}  # fmt: skip


def with_others(one, measures, others=dict):
    """The same File; beside it in the manifest stands what `measures`, functions of a model, find
    for the model of each seed, and what `others` trains but does not ship."""

    def train():
        models, facts = one.train()
        found = others()
        for model in models:
            for measure in measures:
                for key, value in measure(model).items():
                    found.setdefault(key, []).append(value)
        return models, facts | {"not_shipped_nmse_db_by_seed": found}

    return one._replace(train=train)


FILES = {
    "subspacenet": with_others(
        file(in_phase, "8 sensors, three coherent sources in phase, 10 dB, T = 100", 20_000,
             "1,500 of batch 128", coherent),
        [partial(shown, "subspacenet"), by_music], rivals),
    "subspacenet_mixed": with_others(
        file(mixed, "8 sensors, two to five coherent sources of any phases, 10 dB, T = 100",
             "20,000 of each number of sources", "6,000 of batch 128",
             lambda count, seed: coherent(count, seed, phases=True)),
        [partial(shown, "subspacenet_mixed", finish=likely), on_others], single),
    "subspacenet_few": with_others(
        file(few, "8 sensors, three independent sources, 10 dB, T = 2, 5, 10, 20",
             "10,000 of each T", "4,000 of batch 128",
             lambda count, seed: apart(count, seed, snapshots=5)),
        [partial(shown, "subspacenet_few", finish=likely)]),
    "subspacenet_array": with_others(
        file(at_one_array, "three independent sources, 10 dB, T = 100, one wrong array", 20_000,
             "3,000 of batch 128", bent),
        [lambda model: shown("subspacenet_array", model,
                             finish=partial(likely, array=fitted_array()))]),
    "subspacenet_each": with_others(
        file(lambda seed: at_one_array(seed, "each"),
             "the same, another wrong array in each scene", 20_000, "3,000 of batch 128",
             lambda count, seed: bent(count, seed, "each")),
        [partial(shown, "subspacenet_each")]),
}  # fmt: skip
