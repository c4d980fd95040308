"""Model-based parts: what fills the slot of log-likelihoods, and what is estimated from pilots.

Pilots are pairs (x, state): observations and the states that made them, (T, ..., blocks); each
entry of the dimensions between is estimated on its own, from all steps and all blocks.
"""

from typing import NamedTuple

import torch

from .problem import outputs, recent


def channel_likelihood(x, law, taps):
    """log p(x_t | state), (T, ..., states), of a Law and taps (..., memory), true or believed."""
    return law.log_likelihood(x, outputs(taps, law.levels))


def least_squares(x, state, levels, memory):
    """(taps (..., 1, memory), noise variance (..., 1)) that explain pilots best, linearly.

    h = argmin Σ (x_t − hᵀ a_t)², a_t the levels of the last symbols; variance: the mean square that
    is left. Raises ValueError where the pilots do not determine the taps.
    """
    pairs(x, state)
    A = rows(recent(memory, levels, x.dtype).to(x)[state])
    b = rows(x[..., None])
    gram = A.mT @ A
    if (torch.linalg.matrix_rank(gram, hermitian=True) < memory).any():
        raise ValueError(f"x, state: {len(A.mT[0])} pilots do not determine {memory} taps")
    taps = torch.linalg.solve(gram, A.mT @ b)
    return taps.mT, (b - A @ taps).square().mean((-2, -1))[..., None]


class ByState(NamedTuple):
    """A Gaussian for each state, whatever the channel: mean and variance (..., 1, states), and
    `share`, how often the state came. Called, it is log p(x | state), (T, ..., states)."""

    mean: torch.Tensor
    variance: torch.Tensor
    share: torch.Tensor

    def __call__(self, x):
        normal = torch.distributions.Normal(self.mean, self.variance.sqrt(), validate_args=False)
        return normal.log_prob(x[..., None])

    def marginal(self, x):
        """log p(x), (T, ...): the mixture of the states."""
        return (self(x) + self.share.log()).logsumexp(-1)


def by_state(x, state, states):
    """The Gaussian of each state by counting pilots: 2 × states numbers, no training.

    A state that comes less than twice has the mean and variance of all.
    """
    pairs(x, state)
    which, values = rows(state[..., None])[..., 0], rows(x[..., None])[..., 0]
    one_hot = (which[..., None] == torch.arange(states).to(which)).to(x)
    count = one_hot.sum(-2)

    def average(values, otherwise):
        sums = (values[..., None, :] @ one_hot)[..., 0, :]
        return torch.where(count > 1, sums / count.clamp(min=1), otherwise[..., None])

    mean = average(values, values.mean(-1))
    left = (values - mean.gather(-1, which)).square()
    variance = average(left, values.var(-1)).clamp(min=1e-6)
    share = count / count.sum(-1, keepdim=True)
    return ByState(*(v[..., None, :] for v in (mean, variance, share)))


def medians(x, state, states):
    """The median of x for each state by sorting pilots, (..., 1, states): a middle without a law.

    A state that never comes has the median of all.
    """
    pairs(x, state)
    which, values = rows(state[..., None])[..., 0], rows(x[..., None])[..., 0]
    mine = which[..., None, :] == torch.arange(states).to(which)[:, None]
    middle = values[..., None, :].where(mine, torch.nan).nanmedian(-1).values
    return middle.where(mine.any(-1), values.median(-1, keepdim=True).values)[..., None, :]


class LeftOver(NamedTuple):
    """The histogram of what a middle for each state leaves over, whatever law it has: u (..., 1,
    states), scale (..., 1, 1) and log_p (..., 1, bins). Called, it is log p(x | state), (T, ...,
    states)."""

    u: torch.Tensor
    scale: torch.Tensor
    log_p: torch.Tensor

    def __call__(self, x):
        y = (x[..., None] - self.u) / self.scale
        log_p = self.log_p.expand(*y.shape[:-1], -1).gather(-1, cells(y, self.log_p.shape[-1]))
        return log_p - y.square().log1p() / 2  # the cells are as wide as asinh makes them


def left_over(x, state, u, bins=81):
    """The LeftOver of pilots and u (..., 1, states), the `outputs` of taps or the `medians`.

    Cells are narrow where much is and wide in the tails: counted in asinh(r / scale), scale the
    median of |r|; taken to be symmetric and alike for all states, half a pilot more in each cell.
    """
    pairs(x, state)
    r = rows((x[..., None] - u).gather(-1, state[..., None]))[..., 0]
    scale = r.abs().median(-1, keepdim=True).values.clamp(min=1e-9)
    cell = cells(r / scale, bins)
    count = (cell[..., None] == torch.arange(bins).to(cell)).sum(-2).to(x)
    count = (count + count.flip(-1)) / 2 + 0.5
    log_p = (count / count.sum(-1, keepdim=True)).log()
    return LeftOver(u, scale[..., None], log_p[..., None, :])


def cells(y, bins, top=8.0):
    return ((y.asinh() / top + 1) / 2 * bins).long().clamp(0, bins - 1)


def learned_transitions(state, states, symbols=2, prior=1.0):
    """log p(next symbol | state), (states, symbols), by a histogram of consecutive states.

    state (T, ...), consecutive along the first dimension; all others are pooled. prior: added to
    each count, so that nothing unseen is impossible. Section V-B in Shlezinger, Whang, Eldar,
    Dimakis 2023, doi 10.1109/JPROC.2023.3247480.
    """
    if state.ndim < 1 or len(state) < 2:
        raise ValueError(f"state: got shape {tuple(state.shape)}, expected two steps or more")
    cell = (state[:-1] * symbols + state[1:] % symbols).flatten()
    counts = torch.bincount(cell, minlength=states * symbols).double() + prior
    return counts.unflatten(0, (states, symbols)).log().log_softmax(-1)


def rows(values):
    """(T, ..., blocks, n) -> (..., T · blocks, n)."""
    return values.movedim(0, -3).flatten(-3, -2)


def pairs(x, state):
    if x.shape != state.shape or x.ndim < 2 or not x.numel():
        raise ValueError(
            f"x, state: got shapes {tuple(x.shape)} and {tuple(state.shape)}, expected the same, "
            "(T, ..., blocks)"
        )
