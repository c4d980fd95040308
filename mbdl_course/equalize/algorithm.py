"""The algorithm: the best path through a trellis, and the probability of every state, both from
log-likelihoods of anyone. One step each, folded over what arrives."""

import math
from functools import reduce
from itertools import accumulate, chain
from typing import NamedTuple

import torch


class Survivors(NamedTuple):
    """After a step: the log-probability of the best path into each state, (..., states), in double
    precision, so that 10⁵ steps lose no digits that matter."""

    metric: torch.Tensor


class Path(NamedTuple):
    """The most likely symbols s and states, whole numbers (T, ...); score: the logarithm of their
    probability and the observations', (...)."""

    s: torch.Tensor
    states: torch.Tensor
    score: torch.Tensor


class Posterior(NamedTuple):
    """log p(s_t | x), (T, ..., symbols), log p(state_t | x), (T, ..., states), and the evidence
    log p(x), (...)."""

    s: torch.Tensor
    states: torch.Tensor
    evidence: torch.Tensor


def survivors(log_likelihoods, symbols=2, transitions=None, start=None):
    """The Survivors of each step, the start first: the forward half of `viterbi`, same arguments.

    A state has `symbols` predecessors, that differ in the oldest symbol: the digit it forgets.
    """
    ll, transitions, start = checked(log_likelihoods, symbols, transitions, start, torch.float64)

    def step(before, ll):
        best = reduce(torch.maximum, leaving(before.metric, transitions).chunk(symbols, -2))
        return Survivors((best + ll).flatten(-2))

    first = start.expand(log_likelihoods.shape[1:])
    return accumulate(ll, step, initial=Survivors(first))


def traced(steps, state, symbols=2, transitions=None):
    """The states (T, ...) of the survivor that ends in `state` (...), steps being all `survivors`,
    with the same symbols and transitions.

    Which predecessor was best is asked here, for many steps at once: inside the fold it would cost
    as much again.
    """
    if transitions is not None:
        transitions = transitions.to(steps[0].metric)

    def predecessors(part):  # (..., states) of each step, the last first: the state before
        options = leaving(torch.stack([step.metric for step in part]), transitions)
        best, *others = options.chunk(symbols, -2)
        rest = torch.arange(best.shape[-2], device=best.device)[:, None]
        before = rest.expand_as(best)
        for k, other in enumerate(others, 1):
            before = torch.where(other > best, rest + k * len(rest), before)
            best = torch.maximum(other, best)
        return reversed(before.expand(*before.shape[:-1], symbols).flatten(-2).unbind())

    parts = (steps[max(end - 64, 1) : end] for end in range(len(steps) - 1, 1, -64))
    arrivals = chain.from_iterable(map(predecessors, parts))  # 64 steps stay in the cache
    found = accumulate(arrivals, lambda s, before: before.gather(-1, s), initial=state[..., None])
    return torch.stack([*found][::-1])[..., 0]


def viterbi(log_likelihoods, symbols=2, transitions=None, start=None):
    """The Path that maximises Σ_t log p(x_t | state_t) + log p(s_t | state_{t−1}): full traceback.

    log_likelihoods (T, ..., states), from anyone: this is the slot. What does not depend on the
    state changes nothing there. transitions: log p(next symbol | state), (states, symbols), None:
    all alike. start: log-probabilities of the state before the first step, (states,), None: alike.
    Forney 1973, "The Viterbi algorithm", doi 10.1109/PROC.1973.9030. Raises TypeError or ValueError
    for what cannot be a trellis, ValueError where every path is impossible.
    """
    steps = list(survivors(log_likelihoods, symbols, transitions, start))
    score, state = steps[-1].metric.max(-1)
    possible(score)
    states = traced(steps, state, symbols, transitions)
    return Path(states % symbols, states, score.to(log_likelihoods))


def bcjr(log_likelihoods, symbols=2, transitions=None, start=None):
    """The Posterior of every symbol: the sum-product algorithm on the same trellis.

    Forward and backward messages are (29) and (30) in Shlezinger, Whang, Eldar, Dimakis 2023, doi
    10.1109/JPROC.2023.3247480, in logarithms, each scaled; the likeliest symbol of each step is
    (31). Arguments and errors as for `viterbi`. The evidence means something only for likelihoods
    that are densities of x. Bahl, Cocke, Jelinek, Raviv 1974, doi 10.1109/TIT.1974.1055186.
    """
    ll, transitions, start = checked(log_likelihoods, symbols, transitions, start)

    def forward(before, ll):
        message = leaving(before[0], transitions).unflatten(-2, (symbols, -1)).logsumexp(-3)
        message = (message + ll).flatten(-2)
        total = message.logsumexp(-1)
        return message - total[..., None], before[1] + total

    def backward(message, ll):
        message = (message.unflatten(-1, (-1, symbols)) + ll)[..., None, :, :]
        if transitions is not None:
            message = message + transitions.unflatten(0, (symbols, -1))
        message = message.logsumexp(-1)
        message = message.expand(*message.shape[:-2], symbols, -1).flatten(-2)
        return message - message.amax(-1, keepdim=True)

    first = start.expand(log_likelihoods.shape[1:])
    _, *past = accumulate(ll, forward, initial=(first, torch.zeros_like(first[..., 0])))
    possible(past[-1][1])
    future = accumulate(ll[1:].flip(0), backward, initial=torch.zeros_like(first))
    states = torch.stack([message for message, _ in past]) + torch.stack([*future][::-1])
    states = states.log_softmax(-1)
    return Posterior(states.unflatten(-1, (-1, symbols)).logsumexp(-2), states, past[-1][1])


def leaving(metric, transitions):
    """The metric of each state with each next symbol, (..., states, next or 1), oldest first."""
    return metric[..., None] if transitions is None else metric[..., None] + transitions


def possible(total):
    if not total.isfinite().all():
        raise ValueError(
            "log_likelihoods: every path is impossible, expected one or more that are not"
        )


def checked(log_likelihoods, symbols, transitions, start, dtype=None):
    """The logarithms, as they meet: log_likelihoods (T, ..., the rest, newest), transitions
    (states, next) or None, start (states,)."""
    ll = log_likelihoods
    if not isinstance(ll, torch.Tensor) or not ll.is_floating_point():
        came = getattr(ll, "dtype", type(ll).__name__)
        raise TypeError(f"log_likelihoods: got {came}, expected a tensor of real floats")
    if not isinstance(symbols, int) or symbols < 2:
        raise ValueError(f"symbols: got {symbols!r}, expected a whole number, 2 or more")
    states = ll.shape[-1] if ll.ndim else 0
    if ll.ndim < 2 or not ll.numel() or symbols ** round(math.log(states, symbols)) != states:
        raise ValueError(
            f"log_likelihoods: got shape {tuple(ll.shape)}, expected (T, ..., states), the number "
            f"of states a power of {symbols}"
        )
    if states == 1 or not ll.max() < math.inf:
        bad = (~(ll < math.inf)).sum().item()
        came = "one state" if states == 1 else f"{bad} entries that are NaN or +inf"
        raise ValueError(f"log_likelihoods: got {came}, expected logarithms of likelihoods")
    ll = ll.to(dtype or ll.dtype)
    if transitions is None:
        ll = ll - math.log(symbols)  # once, not at each step
    else:
        transitions = probabilities("transitions", transitions, (states, symbols)).to(ll)
    if start is None:
        start = ll.new_full((states,), -math.log(states))
    else:
        start = probabilities("start", start, (states,)).to(ll)
    return ll.unflatten(-1, (-1, symbols)), transitions, start


def probabilities(name, value, shape):
    if not isinstance(value, torch.Tensor) or value.shape != shape:
        came = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"{name}: got {came}, expected a tensor of shape {shape}")
    if not torch.allclose(value.logsumexp(-1), torch.zeros_like(value.sum(-1)), atol=1e-3):
        raise ValueError(f"{name}: its exponentials do not sum to one, expected log-probabilities")
    return value
