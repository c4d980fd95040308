"""torch.compile where it may pay: seconds to compile, and eager time over compiled time.

    python benchmarks/compile_speed.py

Four small computations, each the body of a method of the course, float32, one thread: ten steps of
ISTA for one signal and for a thousand, a hundred steps of a Kalman filter's arithmetic for 200
trajectories of two states, and soft interference cancellation's tanh and residual. Eager and
compiled in turn; the median ratio of nine rounds and its quartiles. Needs a C++ compiler. Writes
benchmarks/results/compile_speed.json.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from timing import repeats, rounded, seconds, versions

from mbdl_course.learn import seeded
from mbdl_course.prox import soft_threshold


def ista(x, H):
    s = torch.zeros_like(H.mT @ x)
    for _ in range(10):
        s = soft_threshold(s - 0.1 * (H.mT @ (H @ s - x)), 0.01)
    return s


def shrink(s, gradient):  # the part of a step that is no matrix product
    for _ in range(10):
        s = soft_threshold(s - 0.1 * gradient, 0.01)
    return s


def kalman(xs, F, K):
    s = torch.zeros_like(xs[0])
    for x in xs:
        s = F @ s
        s = s + K @ (x - s)
    return s


def cases():
    def normal(*shape):
        return torch.randn(*shape, generator=seeded(0))

    H = normal(50, 100) / 50**0.5
    F = torch.eye(2) + 0.1 * normal(2, 2)
    yield "ISTA, 10 steps, 50 × 100, 1 signal", ista, (normal(1, 50, 1), H)
    yield "ISTA, 10 steps, 50 × 100, 1,000 signals", ista, (normal(1000, 50, 1), H)
    yield "soft thresholding alone, 10 times, 100,000 numbers", shrink, (normal(100000, 1),) * 2
    yield "fixed-gain filter, 100 steps, 200 trajectories", kalman, (
        normal(100, 200, 2, 1), F / 2, 0.5 * torch.eye(2))  # fmt: skip


def main():
    with tempfile.TemporaryDirectory() as folder:  # not what an earlier run has compiled
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        return measured()


def measured():
    torch.set_num_threads(1)
    rows = []
    for name, eager, arguments in cases():
        compiled = torch.compile(eager, fullgraph=True, dynamic=False)
        start = time.perf_counter()
        try:
            answer = compiled(*arguments)
        except Exception as error:
            print(f"torch.compile does not work here: {type(error).__name__}", file=sys.stderr)
            return 1
        compiling = time.perf_counter() - start
        torch.testing.assert_close(answer, eager(*arguments), atol=1e-4, rtol=1e-4)
        each = repeats(seconds(lambda: eager(*arguments))[0])  # noqa: B023
        calls, times = (eager, compiled), ([], [])
        for k in range(9):
            for i in (0, 1) if k % 2 else (1, 0):
                taken = seconds(lambda: [calls[i](*arguments) for _ in range(each)])[0]  # noqa: B023
                times[i].append(taken / each)
        ratios = [a / b for a, b in zip(*times, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        rows.append(rounded({
            "what": name, "compile_s": compiling, "eager_ms": 1e3 * statistics.median(times[0]),
            "eager_over_compiled": middle, "quartiles": [low, high],
            "calls_to_pay": compiling / max(1e-12, statistics.median(times[0]) * (1 - 1 / middle))
            if middle > 1 else None}))  # fmt: skip
        print(rows[-1], flush=True)
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    result = {"threads": 1, "rows": rows, "versions": versions("torch"), "machine": machine}
    path = Path(__file__).resolve().parent / "results/compile_speed.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
