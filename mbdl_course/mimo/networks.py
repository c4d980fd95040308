"""Networks: DeepSIC, DetNet and OAMP-Net are unfolded algorithms; a black box; their training."""

import torch
from torch import nn
from torch.nn.functional import softplus

from mbdl_course.fold import estimate, last
from mbdl_course.learn import Stage, batches, training
from mbdl_course.unfold import Thetas, Unfolded, arriving

from .algorithm import oamp, per_channel, projected_gradient, soft_interference_cancellation
from .parts import learned_decision, perceptrons, wide_projection

# ---- Networks in the slot ----------------------------------------------------------------------


def DeepSIC(antennas, users, depth=5, receivers=(), widths=(60, 30), generator=None):
    """Soft interference cancellation whose decisions are learned: x ↦ log-odds (..., m, 1).

    depth × users networks of n + m − 1 inputs, `widths` and one output (the published ones have a
    softmax of two). receivers: a shape, e.g. (8,): so many are trained and run at once, on x
    (count, *receivers, n, 1). H is not known to it. Shlezinger, Fu, Eldar 2020, "DeepSIC", doi
    10.1109/TWC.2020.3032663.
    """
    size, count = antennas + users - 1, (*receivers, users)
    layers = [drawn((size, *widths, 1), count, generator) for _ in range(depth)]
    return Unfolded(
        soft_interference_cancellation, Thetas(layers), part=learned_decision(), users=users
    )


def drawn(sizes, count, generator):
    """(W1, b1, W2, b2, W3, b3) of `count` (a shape) networks, uniform in ±1/√inputs."""
    theta = []
    for before, after in zip(sizes, sizes[1:], strict=False):
        for columns in (before, 1):
            u = torch.rand(*count, after, columns, generator=generator)
            theta.append((2 * u - 1) / before**0.5)
    return tuple(theta)


# ---- Unfolded ----------------------------------------------------------------------------------


def DetNet(users, depth=10, mu=0.6, generator=None, tied=False):
    """Projected gradient unfolded into layers of a network, filled as projected gradient of step μ.

    `Received` ↦ ŝ (..., m, 1), for any number of antennas. z has 4m entries and the memory 2m;
    ReLU(q) − ReLU(−q) = q passes the gradient step through. See `wide_projection`. tied: all
    layers share their numbers.
    """
    m, eye = users, torch.eye(users)
    layers = []
    for _ in range(depth):
        extra, _, to_memory = drawn((3 * m, 2 * m, 2 * m), (), generator)[:3]
        none, free = torch.zeros(m, 2 * m), torch.zeros(2 * m, 1)
        W1 = torch.cat([torch.cat([eye, none], 1), torch.cat([-eye, none], 1), extra])
        W2, W3 = torch.cat([eye, -eye, none], 1), torch.cat([to_memory, to_memory], 1)
        layers.append((mu, mu, 1.0, W1, torch.zeros(4 * m, 1), W2, free[:m], W3, free))
    thetas = Thetas(layers, tied=tied)
    return Unfolded(per_channel(projected_gradient), thetas, part=wide_projection)


def OAMPNet(depth=5):
    """OAMP unfolded, two numbers a layer, filled with OAMP's own: `Received` ↦ ŝ (..., m, 1)."""
    return Unfolded(per_channel(oamp), Thetas((1.0, 1.0), depth))


class Layers(nn.Module):
    """x ↦ the estimates after each layer, stacked (depth, ..., m, 1): for `every_layer`."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return torch.stack([estimate(state) for state in self.network.states(x)][1:])


# ---- Black box ---------------------------------------------------------------------------------


class BlackBox(nn.Module):
    """x ↦ log-odds (..., m, 1): one plain classifier for all users, `receivers` of them at once."""

    def __init__(self, antennas, users, receivers=(), widths=(60, 30), generator=None):
        super().__init__()
        sizes = (antennas, *widths, users)
        self.theta = nn.ParameterList(map(nn.Parameter, drawn(sizes, receivers, generator)))

    def forward(self, x):
        return perceptrons(x[..., 0], *self.theta).unsqueeze(-1)


# ---- Training ----------------------------------------------------------------------------------


def cross_entropy(odds, s):
    """−log p(s) summed over users, averaged over the batch: (17) in Shlezinger, Whang, Eldar,
    Dimakis 2023, for log-odds and symbols (..., m, 1)."""
    return softplus(-s * odds).sum((-2, -1)).mean()


def every_layer(iterates, s):
    """Σ_k log(1 + k) · mean ‖ŝ_k − s‖², as DetNet is trained; iterates (depth, ..., m, 1)."""
    weights = torch.arange(2, 2 + len(iterates)).to(s).log()
    errors = (iterates - s).square().sum((-2, -1)).flatten(1).mean(1)
    return (weights * errors).sum()


class Iteration(nn.Module):
    """One iteration of a DeepSIC alone: (x, log-odds) in one column ↦ the next log-odds."""

    def __init__(self, model, layer):
        super().__init__()
        self.layer, self.step = layer, model.algorithm
        self.slots = model.slots

    def forward(self, both):
        x, odds = both.split([both.shape[-2] - self.slots["users"], self.slots["users"]], -2)
        return last(self.step(x, None, [map(arriving, self.layer)], start=odds, **self.slots))


def sequentially(model, x, s, steps=300, lr=1e-2, size=128, seed=0):
    """Train a DeepSIC iteration by iteration, each on what those before it answer; yields Progress.

    x (count, ..., n, 1), s (count, ..., m, 1); `steps` for each iteration. (18) in Shlezinger,
    Whang, Eldar, Dimakis 2023. The first one is trained on log-odds 0, as it will be used.
    """
    odds, depth = torch.zeros_like(s), len(model.thetas)
    for k, layer in enumerate(model.thetas.layers):
        one, both = Iteration(model, layer), torch.cat([x, odds], -2)
        source = batches(both, s, size, seed + k)
        for p in training(one, source, cross_entropy, [Stage(steps, lr)]):
            yield p._replace(step=k * steps + p.step, steps=depth * steps, stage=k, model=model)
        with torch.no_grad():
            odds = torch.cat([one(part) for part in both.split(2000)])


def end_to_end(model, x, s, steps=300, lr=1e-2, size=128, seed=0):
    """Train all iterations of a DeepSIC at once on (17), or a black box; yields Progress."""
    return training(model, batches(x, s, size, seed), cross_entropy, [Stage(steps, lr)])
