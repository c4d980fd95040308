"""Learned parts: a classifier in the slot of the likelihood, many at once; and a black box."""

import math
from itertools import accumulate

import torch
from torch import nn

from mbdl_course.learn import seeded
from mbdl_course.networks import Knowing

from .parts import pairs, rows

# ---- Learned parts -----------------------------------------------------------------------------


class Classifier(nn.Module):
    """log p(state | x), (T, ..., states), by a small network of one number x_t, for each receiver.

    1 → 100 (sigmoid) → 50 (ReLU) → states (softmax), the sizes of Shlezinger, Farsad, Eldar,
    Goldsmith 2020, ViterbiNet, doi 10.1109/TWC.2020.2972352. receivers: the shape of x between
    time and blocks; each has weights of its own, and all go through one matrix product. centre and
    spread, of that shape: x is shifted and scaled by them.
    """

    def __init__(self, states, receivers=(), hidden=(100, 50), centre=0.0, spread=1.0,
                 generator=None):  # fmt: skip
        super().__init__()
        receivers, sizes = tuple(receivers), (1, *hidden, states)
        self.register_buffer("centre", each(centre, receivers))
        self.register_buffer("spread", each(spread, receivers))
        both = [drawn((*receivers, size_in, size_out), size_in, generator)
                for size_in, size_out in zip(sizes, sizes[1:], strict=False)]  # fmt: skip
        self.weights, self.biases = map(nn.ParameterList, zip(*both, strict=True))

    def forward(self, x):
        values = (rows(x[..., None]) - self.centre) / self.spread
        first, second, third = zip(self.weights, self.biases, strict=True)
        values = (values @ first[0] + first[1]).sigmoid()
        values = (values @ second[0] + second[1]).relu()
        values = (values @ third[0] + third[1]).log_softmax(-1)
        return values.unflatten(-2, (len(x), x.shape[-1])).movedim(-3, 0)


class ViterbiNet(Knowing):
    """log p(x | state) by Bayes from a classifier, (T, ..., states): p(state | x) p(x) / p(state).

    In the slot of `viterbi` it is ViterbiNet, in that of `bcjr` BCJRNet, a learned factor graph:
    the same network. share: log p(state), None: all alike. marginal(x): log p(x), (T, ...), None:
    0; it is the same for all states, so neither the path nor the posterior can see it, only the
    evidence can. (32) in Shlezinger, Whang, Eldar, Dimakis 2023, doi 10.1109/JPROC.2023.3247480.
    """

    def __init__(self, classifier, share=None, marginal=None):
        super().__init__()
        self.classifier, self.share, self.marginal = classifier, share, marginal

    def forward(self, x):
        values = self.classifier(x)
        share = -math.log(values.shape[-1]) if self.share is None else self.share
        values = values - share
        return values if self.marginal is None else values + self.marginal(x)[..., None]


def classifier_for(x, states, generator=None):
    """An untrained Classifier for pilots x (T, ..., blocks), one for each entry between.

    Their middle 80 % become about −1 ... 1; the extremes, which may be anywhere, do not count.
    """
    pairs(x, x)
    low, middle, high = torch.quantile(rows(x[..., None]), torch.tensor([0.1, 0.5, 0.9]).to(x), -2)
    spread = ((high - low) / 2).clamp(min=1e-6)
    return Classifier(states, x.shape[1:-1], centre=middle[..., None], spread=spread[..., None],
                      generator=generator).to(x.device)  # fmt: skip


def cross_entropy(log_p, state):
    """−log p of the true state, averaged over time and blocks, summed over receivers: each is
    trained as if alone."""
    return -log_p.gather(-1, state[..., None])[..., 0].mean((0, -1)).sum()


def pilots(x, state, size, seed):
    """Endless random batches (x, state) of `size` pilots for each receiver, (size, ..., 1)."""
    pairs(x, state)
    x, state = (rows(v[..., None])[..., 0] for v in (x, state))  # (..., T · blocks)
    generator = seeded(seed)
    while True:
        for part in torch.randperm(x.shape[-1], generator=generator).split(size):
            yield tuple(v[..., part].movedim(-1, 0)[..., None] for v in (x, state))


def windows(x, s, length, size, seed):
    """Endless random batches (x, s) of `size` windows of x and s (T, ..., blocks): (length, ...,
    size), all receivers at the same places."""
    pairs(x, s)
    if not length <= len(x):
        raise ValueError(f"x: got {len(x)} steps, expected {length} or more, one window")
    generator, steps = seeded(seed), torch.arange(length)[:, None]
    while True:
        t = torch.randint(len(x) - length + 1, (size,), generator=generator) + steps
        block = torch.randint(x.shape[-1], (size,), generator=generator).expand_as(t)
        yield tuple(v.movedim(-1, 1)[t, block].movedim(1, -1) for v in (x, s))


# ---- Black box ---------------------------------------------------------------------------------


class SlidingRNN(nn.Module):
    """log p(s_t | x), (T, ..., blocks, symbols), by a bidirectional GRU on windows of x, for each
    receiver.

    Windows of `window` steps begin `stride` apart; where they overlap, their probabilities are
    averaged. It knows neither the trellis nor the memory. receivers, centre and spread as for
    `Classifier`. Farsad, Goldsmith 2018, "Neural Network Detection of Data Sequences in
    Communication Systems", doi 10.1109/TSP.2018.2868322.
    """

    def __init__(self, receivers=(), symbols=2, hidden=20, window=20, stride=10, centre=0.0,
                 spread=1.0, generator=None):  # fmt: skip
        super().__init__()
        self.window, self.stride, receivers = window, stride, tuple(receivers)
        self.register_buffer("centre", each(centre, receivers))
        self.register_buffer("spread", each(spread, receivers))
        ways = (2, *receivers)  # forward and backward are two receivers more
        self.seen, self.seen_bias = drawn((*ways, 1, 3 * hidden), hidden, generator)
        self.kept, self.kept_bias = drawn((*ways, hidden, 3 * hidden), hidden, generator)
        self.out, self.out_bias = drawn((*receivers, 2 * hidden, symbols), 2 * hidden, generator)

    def forward(self, x):
        if len(x) < self.window:
            raise ValueError(f"x: got {len(x)} steps, expected {self.window} or more, one window")
        begins = [*range(0, len(x) - self.window, self.stride), len(x) - self.window]
        at = torch.arange(self.window)[:, None] + torch.tensor(begins)  # (window, begins)
        at, blocks = at.to(x.device), x.shape[-1]
        values = x[at].movedim(1, -2).flatten(-2)[..., None]  # (window, ..., begins · blocks, 1)
        values = (values - self.centre) / self.spread
        values = torch.stack([values, values.flip(0)], 1) @ self.seen + self.seen_bias
        start = values[0, ..., : self.kept.shape[-2]] * 0
        _, *hidden = accumulate(values, self.step, initial=start)
        ahead, back = torch.stack(hidden).unbind(1)
        p = (torch.cat([ahead, back.flip(0)], -1) @ self.out + self.out_bias).softmax(-1)
        p = p.unflatten(-2, (len(begins), blocks)).movedim(-3, 1).flatten(0, 1)
        total = p.new_zeros(len(x), *p.shape[1:]).index_add(0, at.flatten(), p)
        count = torch.bincount(at.flatten(), minlength=len(x)).to(p)
        return (total / count.view(-1, *[1] * (p.ndim - 1))).clamp(min=1e-12).log()

    def step(self, hidden, seen):
        """The gated recurrent unit: what is seen, and what of the past is kept and let in."""
        seen_z, seen_r, seen_n = seen.chunk(3, -1)
        z, r, n = (hidden @ self.kept + self.kept_bias).chunk(3, -1)
        z, r = (seen_z + z).sigmoid(), (seen_r + r).sigmoid()
        return z * hidden + (1 - z) * (seen_n + r * n).tanh()


def each(value, receivers):
    """A number, or one for each receiver, as (*receivers, 1, 1)."""
    value = torch.as_tensor(value).to(torch.get_default_dtype())
    return value.expand(*receivers, 1, 1).clone()


def drawn(shape, fan, generator):
    """A weight and a bias for each receiver, uniform within ±1/√fan."""
    for_bias = (*shape[:-2], 1, shape[-1])
    draws = (torch.rand(*size, generator=generator) for size in (shape, for_bias))
    return [nn.Parameter((2 * v - 1) * fan**-0.5) for v in draws]
