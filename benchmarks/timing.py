"""What the benchmarks share."""

import time


def seconds(call, repeats=5):
    """The least time of a few runs, and what the call returns."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return min(times), result
