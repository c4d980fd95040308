"""Cost: how it is measured, how it grows with a size, what more workers change (chapter 19)."""

import math
import statistics
import time

# ---- The problem: seconds of a call --------------------------------------------------------------


def alternating(calls, rounds=5, least=2e-3):
    """Seconds of each call in {name: call()}, made in turn: {name: [one for each round]}.

    In turn, because a machine is slower in one minute than in the next: ratios survive that. Each
    call is made once before, to warm up, and in every round as often as fills `least` seconds.
    Raises TypeError for what cannot be called, ValueError for no calls or less than one round.
    """
    if not isinstance(calls, dict) or not all(map(callable, calls.values())):
        raise TypeError(f"calls: got {calls!r}, expected {{name: something to call}}")
    if not calls or rounds < 1:
        raise ValueError(f"calls, rounds: got {len(calls)}, {rounds}, expected at least 1 of each")
    for call in calls.values():
        call()
    counts = {name: math.ceil(least / _seconds(call, 1)) or 1 for name, call in calls.items()}
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(_seconds(call, counts[name]))
    return times


def ratio(times, others):
    """How many times longer one took than the other, round by round: (median, least, most).

    times and others are lists of one length from `alternating`. Raises ValueError otherwise.
    """
    each = [a / b for a, b in zip(times, others, strict=True)]
    return statistics.median(each), min(each), max(each)


def _seconds(call, count):
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


# ---- The algorithm: growth -----------------------------------------------------------------------


def exponents(sizes, costs):
    """The slopes log(c₂/c₁) / log(n₂/n₁) between neighbours: cost ∝ n^p is a line of slope p.

    sizes and costs are sequences of one length, at least 2, positive, the sizes rising. Returns a
    list, one shorter. Raises ValueError otherwise.
    """
    pairs = list(zip(sizes, costs, strict=True))
    if len(pairs) < 2 or not all(n > 0 and c > 0 for n, c in pairs):
        raise ValueError(f"sizes, costs: got {pairs}, expected two or more positive pairs")
    steps = list(zip(pairs, pairs[1:], strict=False))
    if not all(n < larger for (n, _), (larger, _) in steps):
        raise ValueError(f"sizes: got {list(sizes)}, expected rising numbers")
    return [math.log(c2 / c1) / math.log(n2 / n1) for (n1, c1), (n2, c2) in steps]


# ---- Model: more workers -------------------------------------------------------------------------


def speed_up(workers, serial):
    """How many times sooner a fixed job is done, 1 / (s + (1 - s) / p).

    serial: the part s of one worker's time that cannot be shared; workers: p. Never more than 1/s.
    Amdahl 1967, doi 10.1145/1465482.1465560. Raises ValueError unless 0 <= s <= 1 and p >= 1.
    """
    _check(workers, serial)
    return 1 / (serial + (1 - serial) / workers)


def scaled_speed_up(workers, serial):
    """How much more of a growing job is done in the same time, s + (1 - s) p.

    serial: the part s of p workers' time that is not shared. Gustafson 1988, doi
    10.1145/42411.42415. Raises ValueError unless 0 <= s <= 1 and p >= 1.
    """
    _check(workers, serial)
    return serial + (1 - serial) * workers


def serial_part(workers, gained):
    """The s for which `speed_up` of p workers is `gained`, (p / gained - 1) / (p - 1).

    Also known as the Karp-Flatt metric, doi 10.1145/78607.78614: overhead is in it too, so it may
    leave [0, 1]. Raises ValueError unless p > 1 and gained > 0.
    """
    if not workers > 1 or not gained > 0:
        raise ValueError(f"workers, gained: got {workers}, {gained}, expected > 1 and > 0")
    return (workers / gained - 1) / (workers - 1)


def _check(workers, serial):
    if not workers >= 1:
        raise ValueError(f"workers: got {workers}, expected at least 1")
    if not 0 <= serial <= 1:
        raise ValueError(f"serial: got {serial}, expected a part, 0 to 1")
