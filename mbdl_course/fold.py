"""The only loop of the course: a step folded over what arrives.

`accumulate(arrivals, step, initial=s0)` yields s0, step(s0, a1), step(step(s0, a1), a2), ...
What arrives are parameters (`repeat(theta)` for a classical method, `Thetas` for a learned one) or
observations (a filter). States are fresh tensors, so `list(states)` is safe and gradients flow.
"""

from collections import deque
from itertools import accumulate, islice, repeat

__all__ = ["accumulate", "estimate", "islice", "last", "repeat", "until"]


def last(states):
    """Return the final state of a finite iterable; ValueError if there is none."""
    tail = deque(states, maxlen=1)
    if not tail:
        raise ValueError("states: got an empty iterable, expected at least the initial state")
    return tail[0]


def until(states, close, most=100_000):
    """Yield states up to and with the first pair for which close(previous, current) holds.

    `most` bounds the number of steps, so that a test that never holds still ends.
    """
    if most < 1:
        raise ValueError(f"most: got {most}, expected a positive number of steps")
    previous = None
    for state in islice(states, most + 1):
        yield state
        if previous is not None and close(previous, state):
            return
        previous = state


def estimate(state):
    """The estimate ŝ in a state: the state itself, or the first field of a tuple of quantities."""
    return state[0] if isinstance(state, tuple) else state
