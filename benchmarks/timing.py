"""The one way of timing: ours and a peer in turn, in one process, after their answers agree."""

import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, NamedTuple

GATE = 0.3  # a ratio may lose so much against the stored one
DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # modules whose package has another name


class Job(NamedTuple):
    """What a pair times: two calls, and how far apart their answers may be.

    apart(our answer, their answer) is a number, at most `tolerance`; their call does one `work`-th
    of our job, and its seconds count so many times.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    apart: Callable[[Any, Any], float]
    tolerance: float
    work: float = 1.0


class Pair(NamedTuple):
    """One line of the table: prepare(tiny) makes its Job, or has done the Rounds itself.

    peer: what ours is compared with; module: what must be importable for it.
    """

    name: str
    peer: str
    prepare: Callable[[bool], Any]
    module: str = "torch"


class Rounds(NamedTuple):
    """Seconds of each round, ours and theirs, and how far apart the answers were."""

    ours: list
    theirs: list
    apart: float
    tolerance: float


class Ratio(NamedTuple):
    """Their time over ours: the median over the rounds, and the quartiles."""

    median: float
    low: float
    high: float


def alternating(ours, theirs, apart, tolerance, work=1.0, rounds=9, budget=3.0):
    """The Rounds of the two calls in turn, the second of a round first in the next.

    Each call is made once before: that warms up, its answers must agree (AssertionError), and a
    call of less than 20 ms is made more often in each round. After three rounds no more are begun
    than fit `budget` seconds.
    """
    (first, answer), (second, their_answer) = seconds(ours), seconds(theirs)
    distance = float(apart(answer, their_answer))
    if not distance <= tolerance:
        raise AssertionError(
            f"the answers are {distance:.3g} apart, expected at most {tolerance:g}"
        )
    sides = [(ours, times := [], repeats(first)), (theirs, their_times := [], repeats(second))]
    began = time.process_time()
    for k in range(rounds):
        if k >= 3 and time.process_time() - began > budget * k / (k + 1):
            break
        for call, taken, count in sides if k % 2 == 0 else sides[::-1]:
            taken.append(seconds(lambda: [call() for _ in range(count)][-1])[0] / count)  # noqa: B023
    return Rounds(times, [work * t for t in their_times], distance, tolerance)


def repeats(once, least=0.02):
    return min(50, int(least / once) + 1)


def seconds(call):
    """How long this process computes for a call, and its answer.

    Both sides have one thread, so that this is their time on a machine that does nothing else.
    """
    start = time.process_time()
    answer = call()
    return time.process_time() - start, answer


def measured(pair, tiny=False, rounds=9):
    """The Rounds of a pair."""
    job = pair.prepare(tiny)
    return job if isinstance(job, Rounds) else alternating(*job, rounds=rounds)


def ratio(rounds):
    """How many times faster ours is, from the ratios of the rounds."""
    each = [b / a for a, b in zip(rounds.ours, rounds.theirs, strict=True)]
    if len(each) == 1:
        return Ratio(*each * 3)
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return Ratio(middle, low, high)


def record(pair, rounds):
    """What is stored of a pair: three digits, and the versions it was measured with."""
    found = {
        "peer": pair.peer,
        "ratio": ratio(rounds).median,
        "quartiles": [*ratio(rounds)[1:]],
        "ours_s": statistics.median(rounds.ours),
        "peer_s": statistics.median(rounds.theirs),
        "rounds": len(rounds.ours),
        "apart": rounds.apart,
        "tolerance": rounds.tolerance,
    }
    return rounded(found) | {"versions": versions("torch", pair.module)}


def rounded(value):
    """The same with three digits, inside of lists and dictionaries too."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def versions(*modules):
    """Version by package, those that are installed."""
    found = {}
    for name in dict.fromkeys(DISTRIBUTIONS.get(module, module) for module in modules):
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return found


def missing(module):
    """What to do about a peer that is not installed; empty where it is."""
    if find_spec(module):
        return ""
    return f"not installed: pip install {DISTRIBUTIONS.get(module, module)}"


def verdict(new, stored):
    """ok, LOST where `new` is more than 30 % below the stored ratio, or NEW without one."""
    if stored is None:
        return "NEW"
    return "LOST" if new < (1 - GATE) * stored else "ok"
