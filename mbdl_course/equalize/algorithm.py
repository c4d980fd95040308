"""The algorithm: the best path through a trellis, and the probability of every state, both from
log-likelihoods of anyone. One step each, folded over what arrives."""

import math
from itertools import accumulate, chain
from typing import NamedTuple

import torch

CACHED = 64  # steps taken together where it need not be one by one: few enough for the cache


class Survivors(NamedTuple):
    """After a step: the log-probability of the best path into each state.

    Inside a fold states lead, blocks are neighbours in memory: `metric` is (states, ...), and `by`
    is the same as it comes out of a step, (the rest, newest symbol, ...). In double precision, so
    that 10⁵ steps lose no digits that matter.
    """

    by: torch.Tensor

    @property
    def metric(self):
        return self.by.flatten(0, 1)


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
    lls, transitions, first = prepared(log_likelihoods, symbols, transitions, start, torch.float64)
    states, *blocks = first.shape
    shape = (symbols, states // symbols, -1, *blocks)  # oldest symbol, the rest, next or 1

    def step(before, ll):
        options = before.by if transitions is None else before.metric[:, None] + transitions
        return Survivors(options.view(shape).amax(0) + ll)

    return accumulate(lls, step, initial=Survivors(first.unflatten(0, (-1, symbols))))


def traced(steps, state, symbols=2, transitions=None):
    """The states (T, ...) of the survivor that ends in `state` (...), steps being all `survivors`,
    with the same symbols and transitions.

    Which predecessor was best is asked here, for many steps at once: inside the fold it would cost
    as much again.
    """
    if transitions is not None:
        transitions = meeting(transitions, steps[0].metric)

    def predecessors(part):  # (states, ...) of each step, the last first: the state before
        metric = torch.stack([step.by for step in part]).flatten(1, 2)
        best, *others = leaving(metric, transitions, symbols, 1).unbind(1)
        rest = torch.arange(best.shape[1], device=best.device)
        before = rest = rest.view(-1, *(best.ndim - 2) * (1,))
        for k, other in enumerate(others, 1):
            before = torch.where(other > best, rest + k * len(rest), before)
            best = torch.maximum(other, best) if k < len(others) else best
        before = before.expand(-1, -1, symbols, *before.shape[3:])
        return reversed(before.flatten(1, 2).unbind())

    parts = (steps[max(end - CACHED, 1) : end] for end in range(len(steps) - 1, 1, -CACHED))
    arrivals = chain.from_iterable(map(predecessors, parts))
    found = accumulate(arrivals, lambda s, before: before.gather(0, s), initial=state[None])
    return torch.cat([*found][::-1])


def viterbi(log_likelihoods, symbols=2, transitions=None, start=None):
    """The Path that maximises Σ_t log p(x_t | state_t) + log p(s_t | state_{t−1}): full traceback.

    log_likelihoods (T, ..., states), from anyone: this is the slot. What does not depend on the
    state changes nothing there. transitions: log p(next symbol | state), (states, symbols), None:
    all alike. start: log-probabilities of the state before the first step, (states,), None: alike.
    A path is a decision: no gradient passes. Forney 1973, "The Viterbi algorithm", doi
    10.1109/PROC.1973.9030. Raises TypeError or ValueError for what cannot be a trellis, ValueError
    where every path is impossible.
    """
    with torch.inference_mode():  # saves a fifth: the fold is thousands of small operations
        steps = list(survivors(log_likelihoods, symbols, transitions, start))
        score, state = steps[-1].metric.max(0)
        possible(score)
        states = traced(steps, state, symbols, transitions)
    return Path(states % symbols, states.clone(), score.to(log_likelihoods, copy=True))


def bcjr(log_likelihoods, symbols=2, transitions=None, start=None):
    """The Posterior of every symbol: the sum-product algorithm on the same trellis.

    Forward and backward messages are (29) and (30) in Shlezinger, Whang, Eldar, Dimakis 2023, doi
    10.1109/JPROC.2023.3247480, in logarithms, each scaled; the likeliest symbol of each step is
    (31). Arguments and errors as for `viterbi`. The evidence means something only for likelihoods
    that are densities of x. Bahl, Cocke, Jelinek, Raviv 1974, doi 10.1109/TIT.1974.1055186.
    """
    lls, transitions, first = prepared(log_likelihoods, symbols, transitions, start)
    lls = [*lls]

    def forward(before, ll):
        message = leaving(before[0], transitions, symbols).logsumexp(0)
        message = (message + ll).flatten(0, 1)
        total = message.logsumexp(0)
        return message - total, before[1] + total

    def backward(message, ll):
        message = (message.unflatten(0, (-1, symbols)) + ll)[None]
        if transitions is not None:
            message = message + transitions.unflatten(0, (symbols, -1))
        message = message.logsumexp(2)
        message = message.expand(symbols, *message.shape[1:]).flatten(0, 1)
        return message - message.amax(0)

    _, *past = accumulate(lls, forward, initial=(first, torch.zeros_like(first[0])))
    possible(past[-1][1])
    future = accumulate(lls[:0:-1], backward, initial=torch.zeros_like(first))
    states = torch.stack([message for message, _ in past]) + torch.stack([*future][::-1])
    states = states.movedim(1, -1).log_softmax(-1)
    return Posterior(states.unflatten(-1, (-1, symbols)).logsumexp(-2), states, past[-1][1])


def leaving(metric, transitions, symbols, at=0):
    """The metric of each state, axis `at`, with each next symbol: three axes in its place, (oldest,
    the rest, next or 1)."""
    *front, states = metric.shape[: at + 1]
    shape = (*front, symbols, states // symbols, -1, *metric.shape[at + 1 :])
    if transitions is not None:
        metric = metric.unsqueeze(at + 1) + transitions
    return metric.view(shape)


def possible(total):
    if not total.isfinite().all():
        raise ValueError(
            "log_likelihoods: every path is impossible, expected one or more that are not"
        )


def prepared(log_likelihoods, symbols, transitions, start, dtype=None):
    """What is folded, checked and as it meets: the log-likelihoods of each step (the rest, newest,
    ...), transitions (states, next, 1 ...) or None, start (states, ...)."""
    checked(log_likelihoods, symbols, transitions, start)
    states, batch = log_likelihoods.shape[-1], log_likelihoods.shape[1:-1]
    like = log_likelihoods.new_empty((states, *batch), dtype=dtype or log_likelihoods.dtype)
    if start is None:
        start = like.new_full((states,), -math.log(states))
    if transitions is not None:
        transitions = meeting(transitions, like)

    def lls():
        for part in log_likelihoods.split(CACHED):
            part = part.movedim(-1, 1)
            part = part.to(like.dtype, memory_format=torch.contiguous_format).contiguous()
            if transitions is None:
                part = part - math.log(symbols)
            yield from part.unflatten(1, (-1, symbols)).unbind()

    return lls(), transitions, meeting(start, like).expand_as(like)


def meeting(table, metric):
    """A table over states (and symbols) as it broadcasts over the blocks of the metric."""
    return table.to(metric).view(*table.shape, *(metric.ndim - 1) * (1,))


def checked(log_likelihoods, symbols, transitions, start):
    """Raise the error that names what cannot be a trellis."""
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
    if transitions is not None:
        checked_probabilities("transitions", transitions, (states, symbols))
    if start is not None:
        checked_probabilities("start", start, (states,))


def checked_probabilities(name, value, shape):
    if not isinstance(value, torch.Tensor) or value.shape != shape:
        came = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"{name}: got {came}, expected a tensor of shape {shape}")
    if not torch.allclose(value.logsumexp(-1), torch.zeros_like(value.sum(-1)), atol=1e-3):
        raise ValueError(f"{name}: its exponentials do not sum to one, expected log-probabilities")
