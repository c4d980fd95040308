"""Recipes of chapter 10: gains learned for a turned H, for Lorenz, and for noise that changes."""

import math

import torch
from torch import nn

from mbdl_course.fold import accumulate
from mbdl_course.learn import Stage, seeded, training
from mbdl_course.tracking import (
    RNN,
    Belief,
    Filter,
    Given,
    KalmanNet,
    OneGRU,
    SplitGRUs,
    ThreeGRUs,
    attractor,
    canonical,
    compressed,
    extended,
    innovation_error,
    lorenz,
    mse_db,
    rotation,
    simulated,
    state_error,
    unit,
    white,
    windows,
)

from .common import SEEDS, TEST_SEED, VALIDATION_SEED, File, said

F32 = torch.float32
ALL = ("difference", "innovation", "evolution", "update")

# ---- Problems: draw(count, seed, steps) -> (start, x, s) ----------------------------------------


def linear(degrees=0.0, dtype=F32):
    """The canonical model of two states, r² = 1, q² = 0.01, H turned by so many degrees."""
    model = canonical(2, 0.01, 1.0, dtype=dtype)
    return model._replace(H=model.H @ rotation(degrees, dtype=dtype))


def known(m, dtype=F32):
    """The state before the first step: zero, and known."""
    return Belief(torch.zeros(m, 1, dtype=dtype), torch.zeros(m, m, dtype=dtype))


def walks(count, seed, degrees=0.0, steps=100):
    """Trajectories of `linear` from zero."""
    model = linear(degrees)
    x, s = simulated(model, known(2), white(steps, count, model, seeded(seed)))
    return torch.zeros(count, 2, 1), x, s


def flights(count, seed, steps=100, dtype=F32):
    """Lorenz without process noise, r² = 1, from independent starts that are known."""
    truth, start = lorenz(0.02, 0.0, 1.0, substeps=4, dtype=dtype), attractor(count, seeded(seed))
    start = Belief(start.to(dtype), torch.zeros(3, 3, dtype=dtype))
    x, s = simulated(truth, start, white(steps, count, truth, seeded(seed + 5000)))
    return start.s, x, s


def quality(count, seed, steps=100, spread=1.2, stay=0.97, outliers=0.05, level=0.0):
    """The deviation (steps, count) of a sensor's noise that drifts and sometimes fails.

    Its logarithm is an AR(1) process of mean `level`, deviation `spread` and correlation `stay`;
    each observation is an outlier, ten times as noisy, with a probability.
    """
    generator, keep = seeded(seed + 5000), math.sqrt(1 - stay**2)
    kicks = torch.randn(steps, count, generator=generator)
    log = torch.stack([*accumulate(kicks, lambda a, kick: stay * a + keep * kick)])
    failing = torch.rand(steps, count, generator=generator) < outliers
    return (level + spread * log).exp() * torch.where(failing, 10.0, 1.0)


def weather(count, seed, steps=100, **kind):
    """`linear` with q² = 0.1, seen by a sensor of this `quality`."""
    model = canonical(2, 0.1, 1.0, dtype=F32)
    noise, deviation = white(steps, count, model, seeded(seed)), quality(count, seed, steps, **kind)
    x, s = simulated(model, known(2), noise._replace(w=deviation[..., None, None] * noise.w))
    return torch.zeros(count, 2, 1), x, s


# ---- Recipes ----------------------------------------------------------------------------------


def mse(predict, data):
    """MSE in dB of predict(Given(start, x)) against data (start, x, s)."""
    start, x, s = data
    try:
        with torch.no_grad():
            return mse_db(predict(Given(start, x)).s, s).item()
    except FloatingPointError:  # it diverges: the worst there is
        return math.inf


def tracking(module, data, held_out, horizons, seed, lr=5e-3, size=64, loss=state_error):
    """An iterator of training on short windows, then longer ones; validated on whole sequences.

    The recipe that all seeds survive: the last layer starts at zero, horizons grow, the gradient's
    norm is clipped, the learning rate falls along a cosine.
    """
    source = windows(*data, size, horizons, seed + 200)
    steps = sum(times for _, times in horizons)
    return training(module, source, loss, [Stage(steps, lr)], clip=1.0, every=20,
                    validate=lambda predict: mse(predict, held_out))  # fmt: skip


def tracked(*arguments, **options):
    """The module trained to the end, at its best validated state."""
    *_, p = tracking(*arguments, **options)
    return p.model


SHORT = ((20, 60), (50, 80), (100, 160))  # about half a minute
MIDDLE = ((20, 60), (50, 100), (100, 300))
LONG = ((20, 100), (50, 150), (100, 800))


def walker(seed=None, scaling=unit, wide=4, hidden=4, model=None):
    """KalmanNet with F and H = I, and no word of Q and R: one GRU that sees all four features."""
    generator = None if seed is None else seeded(seed + 100)
    network = OneGRU(2, 2, ALL, wide, hidden, generator)
    return Filter(model or linear(), KalmanNet(model or linear(), network, scaling=scaling))


def pilot(seed=None, believed=None, base=True):
    """KalmanNet on Lorenz: corrections to the gain of an extended Kalman filter of order J = 2."""
    generator = None if seed is None else seeded(seed + 100)
    model = believed or lorenz(0.02, 0.15, 1.0, order=2, dtype=F32)
    network = OneGRU(3, 3, ALL, 8, 4, generator)
    gain = KalmanNet(model, network, extended(model) if base else None, compressed)
    return Filter(model, gain, torch.zeros(3, 3))


def black_box(seed=None, relu=False):
    """A recurrent network on Lorenz that is told nothing of the model."""
    generator = None if seed is None else seeded(seed + 100)
    return RNN(3, 3, 48, scale=20.0, relu=relu, generator=generator)


def plain(name, seed):
    """H is known. "one", "three": the published gains; "unsupervised": trained without states."""
    network = walker(seed)
    if name == "three":
        network.gain.network = ThreeGRUs(2, 2, 5, 5, seeded(seed + 100))
    data, held_out = walks(1000, seed), walks(200, VALIDATION_SEED)
    loss = innovation_error if name == "unsupervised" else state_error
    return tracked(network, data, held_out, SHORT, seed, loss=loss)


def turned(name, seed):
    """H is turned by 10 degrees and believed to be I. "one", "split"; "rnn": a black box."""
    network = walker(seed, compressed)
    if name == "split":
        network.gain.network = SplitGRUs(2, 2, generator=seeded(seed + 100))
    if name == "rnn":
        network = RNN(2, 2, 36, scale=10.0, generator=seeded(seed + 100))
    data, held_out = walks(1000, seed, 10.0), walks(200, VALIDATION_SEED, 10.0)
    return tracked(network, data, held_out, LONG, seed, lr=1e-2)


def flown(name, seed):
    """Lorenz. "kalmannet"; "rnn": a black box; "relu": the same with the published last layer."""
    if name == "kalmannet":
        network, horizons, lr = pilot(seed), ((10, 150), (30, 200), (100, 300)), 5e-3
    else:
        network, horizons, lr = black_box(seed, name == "relu"), ((50, 200), (100, 800)), 1e-2
    data, held_out = flights(1000, seed), flights(100, VALIDATION_SEED)
    return tracked(network, data, held_out, horizons, seed, lr)


def weathered(name, seed):
    """A sensor that changes. "compressed": features keep their size; "unit": as published."""
    network = walker(seed, compressed if name == "compressed" else unit)
    data, held_out = weather(4000, seed), weather(1000, VALIDATION_SEED)  # outliers are rare
    return tracked(network, data, held_out, MIDDLE, seed, lr=1e-2)


def recipe(make, parts, problem, steps, n_train=1000):
    """A File's `train`: these parts, from every seed."""

    def train():
        models = [nn.ModuleDict({name: make(name, seed) for name in parts}) for seed in SEEDS]
        return models, said(problem, n_train, steps)

    return train


def blank(parts):
    """A File's `blank`: untrained networks of the same shapes."""
    return lambda: nn.ModuleDict({name: make() for name, make in parts.items()})


def with_network(network, scaling=unit):
    module = walker(scaling=scaling)
    module.gain.network = network
    return module


TURNED = "linear 2 x 2, r² = 1, q² = 0.01, H turned by 10 degrees, T = 100"
FILES = {
    "kalmannet": File(
        recipe(plain, ("one", "three", "unsupervised"),
               "linear 2 x 2, r² = 1, q² = 0.01, T = 100", "60 of 20, 80 of 50, 160 of 100"),
        blank({"one": walker, "three": lambda: with_network(ThreeGRUs(2, 2, 5, 5)),
               "unsupervised": walker}),
        lambda: walks(1000, TEST_SEED), mse,
    ),
    "kalmannet_turned": File(
        recipe(turned, ("one", "rnn", "split"), TURNED, "100 of 20, 150 of 50, 800 of 100"),
        blank({"one": lambda: walker(scaling=compressed), "rnn": lambda: RNN(2, 2, 36, scale=10.0),
               "split": lambda: with_network(SplitGRUs(2, 2), compressed)}),
        lambda: walks(1000, TEST_SEED, 10.0), mse,
    ),
    "kalmannet_lorenz": File(
        recipe(flown, ("kalmannet", "rnn", "relu"), "Lorenz, dt = 0.02, r² = 1, T = 100, "
               "independent known starts", "150 of 10, 200 of 30, 300 of 100"),
        blank({"kalmannet": pilot, "rnn": black_box, "relu": lambda: black_box(relu=True)}),
        lambda: flights(500, TEST_SEED), mse,
    ),
    "kalmannet_weather": File(
        recipe(weathered, ("compressed", "unit"), "linear 2 x 2, q² = 0.1, noise that drifts "
               "and fails", "60 of 20, 100 of 50, 300 of 100", 4000),
        blank({"compressed": lambda: walker(scaling=compressed), "unit": walker}),
        lambda: weather(1000, TEST_SEED), mse,
    ),
}  # fmt: skip
