"""Recipes of chapter 11: a graph network corrects the messages of a smoother, or works alone."""

from contextlib import closing
from typing import NamedTuple

import torch
from torch import nn

from mbdl_course import tracking
from mbdl_course.evaluate import mean_and_error, mse
from mbdl_course.fold import last
from mbdl_course.learn import Stage, batches, seeded, training
from mbdl_course.smoothing import (
    Augmented,
    GraphNetwork,
    Iterates,
    changes,
    largest_step,
    rts,
    silent,
    weighted_error,
)
from mbdl_course.tracking import Belief, Model, filtered, history, simulated, white

from .common import SEEDS, TEST_SEED, File, said

SIZES = (100, 400, 1600, 6400)  # n_train, in time steps: half to fit, half to stop by
MORE = 25600  # for the graph network alone
LENGTH, DEPTH, WIDTH = 100, 10, 16  # time steps of a trajectory, iterations, numbers in a node
STEPS = (
    "at most 300 of 1000 time steps, until the held-out half says stop; at most 1000 for the "
    "network alone from n_train = 6400 on"
)


# ---- Problems -----------------------------------------------------------------------------------


def dragged(drag=0.06, spring=0.17):
    """(the truth, its start): position, velocity and acceleration of one axis, T = 1.

    A drag and a spring hold the point back; its position is seen with variance 0.25. It starts at
    position zero, with the stationary velocity and acceleration: the position has none.
    """
    c, tau = drag, spring
    F = torch.tensor([[1, 1 - c / 2, 0.5], [0, 1 - c + (c**2 - tau) / 2, 1 - c / 2],
                      [0, -tau + c * tau / 2, 1 - tau / 2]])  # fmt: skip
    Q, G = 0.01 * torch.diag(torch.tensor([1 / 3, 1, 3])), F[1:, 1:]
    moving = torch.linalg.solve(torch.eye(4) - torch.kron(G, G), Q[1:, 1:].reshape(4, 1))
    Sigma = torch.block_diag(torch.zeros(1, 1), moving.reshape(2, 2))
    return Model(F, torch.eye(3)[:1], Q, 0.25 * torch.eye(1)), Belief(torch.zeros(3, 1), Sigma)


def straight(q2):
    """(the model, its start) that a smoother is given: constant velocity, Q = q2 I."""
    F, H = torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.eye(2)[:1]
    model = Model(F, H, q2 * torch.eye(2), 0.25 * torch.eye(1))
    return model, Belief(torch.zeros(2, 1), 1000.0 * torch.eye(2))


def on_axes(n_train, generator, length=LENGTH):
    """(x, s) of the dragged point, n_train time steps: its two axes are alike, and one batch."""
    truth, start = dragged()
    horizon = min(n_train, length)
    x, s = simulated(truth, start, white(horizon, 2 * (n_train // horizon), truth, generator))
    return x, truth.H @ s


def taylor(order, q2=0.7):
    """(the model, its start) of a Lorenz attractor by a Taylor series: all that is known of it."""
    model = tracking.lorenz(0.05, q2, 0.25, order=order, dtype=torch.float32)
    return model, Belief(torch.tensor([[0.0], [0.0], [23.5]]), 70.0 * torch.eye(3))


def on_attractor(n_train, generator, length=LENGTH):
    """(x, s) of the Lorenz attractor every 0.05, n_train time steps, each trajectory from its own
    start; truth by ten Runge-Kutta steps for each, without noise in the state."""
    truth = tracking.lorenz(0.05, 0.0, 0.25, substeps=10)
    horizon = min(n_train, length)
    s0 = tracking.attractor(n_train // horizon, generator)
    known = Belief(s0, torch.zeros(3, 3, dtype=s0.dtype))
    x, s = simulated(truth, known, white(horizon, len(s0), truth, generator))
    return x.float(), s.float()


def place_and_changes(x):
    """What a node reads on the attractor: where x is, in units of 10, and how it changes."""
    return torch.cat([x / 10, changes(x)], dim=-2)


# ---- Networks -----------------------------------------------------------------------------------


def plain(model, start):
    """x ↦ the state by the smoother that is augmented: extended where the model is not linear."""
    return Plain(model, start)


class Plain(NamedTuple):
    """A tuple, for the network that starts there to move to a device with all it knows."""

    model: Model
    start: Belief

    @torch.no_grad()
    def __call__(self, x):
        rule = tracking.riccati if isinstance(self.model.F, torch.Tensor) else tracking.extended
        return rts(history(filtered(x, self.model, rule(self.model), self.start))).s


class Seen(NamedTuple):
    """x ↦ Hᵀx: the state where the observation says."""

    H: torch.Tensor

    def __call__(self, x):
        return self.H.mT @ x


def hybrid(model, start, seed=0):
    """The augmented smoother before training: the plain smoother."""
    linear = isinstance(model.F, torch.Tensor)
    gamma = 0.9 * largest_step(model) if linear else 0.1  # on the attractor the curvature is 14
    return Augmented(model, start, network(linear, seed), gamma, DEPTH, plain(model, start))


def alone(model, start, seed=0):
    """The same network without messages; it starts where the observation says."""
    linear = isinstance(model.F, torch.Tensor)
    return Augmented(model, start, network(linear, seed), 0.1, DEPTH, Seen(model.H), silent)


def network(linear, seed):
    g = seeded(seed + 100)
    return (
        GraphNetwork(2, 2, WIDTH, changes, g) if linear
        else GraphNetwork(3, 9, WIDTH, place_and_changes, g)
    )  # fmt: skip


# ---- Recipes ------------------------------------------------------------------------------------


def fitting(network, data, held_out, seed, stage=None, size=1000, alike=False):
    """An iterator of training by (38), `size` time steps in a batch, stopped by the held-out data.

    However it ends, the network is left at its best held-out state; or as it was, if that is no
    better on the held-out data by three standard errors: few data make any network look good.
    alike: the held-out trajectories are one, seen through several draws of noise.
    """
    x, s = data
    seen, wanted = held_out
    stage = stage or Stage(300, 5e-3, patience=8)
    first, others = network.before(x), network.before(seen)
    untrained = {name: p.clone() for name, p in network.state_dict().items()}
    with torch.no_grad():
        before = network(seen, others)

    def error(_):
        return 10 * mse(network(seen, others), wanted).log10()

    def arrivals():
        which = torch.arange(x.shape[1])
        for part, _ in batches(which, which, max(size // len(x), 1), seed):
            yield (x[:, part], first[:, part]), s[:, part]

    steps = training(
        Iterates(network), arrivals(), weighted_error, [stage], error, every=10, clip=1.0
    )
    try:
        with closing(steps):
            for p in steps:
                yield p._replace(model=network)
    finally:
        with torch.no_grad():
            if not convincing(network(seen, others), before, wanted, alike):
                network.load_state_dict(untrained)


def convincing(new, old, s, alike=False, block=10):
    """Whether new is closer to s than old by three standard errors, over blocks of time steps."""
    block = min(block, len(s))
    gain = ((old - s).square() - (new - s).square()).mean((-2, -1))
    gain = gain.mean(1, keepdim=True) if alike else gain  # new noise is no new trajectory
    mean, error = mean_and_error(
        gain[: len(s) // block * block].unflatten(0, (-1, block)).mean(1).flatten()
    )
    return bool(mean > 3 * error)


def linear(n_train, seed, make=hybrid):
    """A network for the dragged point, trained on n_train time steps."""
    return trained(make, straight(0.175), on_axes, n_train, seed)


def chaotic(order, n_train, seed, make=hybrid):
    """A network for the Lorenz attractor, trained on n_train time steps."""
    return trained(make, taylor(order), on_attractor, n_train, seed)


def trained(make, model, draw, n_train, seed):
    """The network of `make`. Alone and with many data it improves for longer, and may."""
    steps = 1000 if make is alone and n_train >= 6400 else 300
    generator = seeded(seed)
    data, held_out = draw(n_train // 2, generator), draw(n_train // 2, generator)
    network = make(*model, seed)
    return last(fitting(network, data, held_out, seed, Stage(steps, 5e-3, patience=8))).model


def augmentation_linear():
    """With messages and without them, for every n_train; the graph network alone on one more."""
    families = [
        nn.ModuleDict(
            {f"hybrid_n{n}": linear(n, seed) for n in SIZES}
            | {f"alone_n{n}": linear(n, seed, alone) for n in (*SIZES, MORE)}
        )
        for seed in SEEDS
    ]
    return families, said("drag and spring, seen by a constant-velocity model", list(SIZES), STEPS)


def augmentation_lorenz():
    """The same for two Taylor orders J; the graph network alone knows no order."""
    families = [
        nn.ModuleDict(
            {f"hybrid_j{J}_n{n}": chaotic(J, n, seed) for J in (1, 2) for n in SIZES}
            | {f"alone_n{n}": chaotic(1, n, seed, alone) for n in (*SIZES, MORE)}
        )
        for seed in SEEDS
    ]
    return families, said("Lorenz, dt = 0.05, r2 = 0.25, a Taylor model", list(SIZES), STEPS)


def blank_linear():
    model = straight(0.175)
    return nn.ModuleDict(
        {f"hybrid_n{n}": hybrid(*model) for n in SIZES}
        | {f"alone_n{n}": alone(*model) for n in (*SIZES, MORE)}
    )


def blank_lorenz():
    return nn.ModuleDict(
        {f"hybrid_j{J}_n{n}": hybrid(*taylor(J)) for J in (1, 2) for n in SIZES}
        | {f"alone_n{n}": alone(*taylor(1)) for n in (*SIZES, MORE)}
    )


def error_db(predict, data):
    """10 log10 of the squared error of predict(x) against the true H s, data (x, H s)."""
    with torch.no_grad():
        return 10 * mse(predict(data[0]), data[1]).log10().item()


FILES = {
    "augmentation_linear": File(
        augmentation_linear, blank_linear, lambda: on_axes(25_000, seeded(TEST_SEED)), error_db
    ),
    "augmentation_lorenz": File(
        augmentation_lorenz, blank_lorenz, lambda: on_attractor(50_000, seeded(TEST_SEED)), error_db
    ),
}
