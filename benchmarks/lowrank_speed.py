"""Singular-value thresholding, and unfolded separation against FISTA, as ratios in one run.

    python benchmarks/lowrank_speed.py [THREADS]

Part one: 100 movies (pixels x frames, complex64 and float32), thresholded at half the largest
singular value: one by one with torch.linalg.svd, all at once with torch.linalg.svd, and all at once
through the Gram matrix. Part two: 100 movies of 16 x 16 x 12 and the shipped networks; FISTA, with
weights tuned on other movies for each number of iterations, stops where its error on S is as small
as the network's, or where it is least (of 300 iterations) if it never is; and FISTA started at the
SVD filter, ten iterations. The least of five runs each.
Writes benchmarks/results/lowrank_speed.json.
"""

import json
import os
import platform
import sys
from itertools import islice, product, repeat
from pathlib import Path

import torch
from timing import seconds

from mbdl_course import weights
from mbdl_course.fold import last
from mbdl_course.learn import seeded
from mbdl_course.lowrank import fista, separation_db, svd_filter
from mbdl_course.prox import singular_value_threshold
from mbdl_course.weights.lowrank import bubbles

COUNT, MOST = 100, 300
SIZES = [(256, 12), (1024, 20), (4096, 20), (64, 48)]


def by_svd(V, beta):
    U, sigma, Wh = torch.linalg.svd(V, full_matrices=False)
    return (U * (sigma - beta).clamp(min=0)[..., None, :]) @ Wh


def thresholding():
    for (pixels, frames), dtype in product(SIZES, (torch.complex64, torch.float32)):
        V = torch.randn(COUNT, pixels, frames, generator=seeded(0), dtype=dtype)
        beta = torch.linalg.matrix_norm(V[0], 2).item() / 2
        loop, one = seconds(lambda: torch.stack([by_svd(v, beta) for v in V]))  # noqa: B023
        batch, _ = seconds(lambda: by_svd(V, beta))  # noqa: B023
        gram, ours = seconds(lambda: singular_value_threshold(V, beta))  # noqa: B023
        torch.testing.assert_close(ours, one, atol=1e-3, rtol=1e-3)
        yield {
            "pixels": pixels, "frames": frames, "dtype": str(dtype)[6:], "loop_s": loop,
            "gram_s": gram, "loop_over_gram": loop / gram, "batched_svd_over_gram": batch / gram,
        }  # fmt: skip


def separation():
    x, parts = bubbles(COUNT, seeded(3001))
    x_fit, fit = bubbles(40, seeded(3002))
    grid = [(0.5, rho_S, ratio * rho_S) for rho_S in (0.05, 0.1, 0.2, 0.4) for ratio in (3, 5, 8)]
    runs = {theta: [separation_db(state.S, fit.S).item()
                    for state in islice(fista(x_fit, None, repeat(theta)), MOST + 1)]
            for theta in grid}  # fmt: skip

    def classical(steps):
        theta = min(grid, key=lambda theta: runs[theta][steps])
        return lambda: last(fista(x, None, repeat(theta, steps))).S

    best = min(range(1, MOST + 1), key=lambda k: min(run[k] for run in runs.values()))
    candidates = [k for k in (3, 5, 10, 20, 30, 50, 70, 100, 150, 200, 300) if k < best] + [best]

    def warm(theta, x):
        return last(fista(x, None, repeat(theta, 10), start=svd_filter(x, 1))).S

    theta = min(grid, key=lambda theta: separation_db(warm(theta, x_fit), fit.S))
    took, S_hat = seconds(lambda: warm(theta, x))
    error = separation_db(S_hat, parts.S).item()
    yield {"classical": "FISTA from the SVD filter, 10", "error_db": error, "seconds": took}
    times = {}
    errors = {k: separation_db(classical(k)(), parts.S).item() for k in candidates}
    for name, network in weights.shipped("corona").items():
        with torch.no_grad():
            ours, S_hat = seconds(lambda: network(x))  # noqa: B023
            error = separation_db(S_hat, parts.S).item()
            steps = next((k for k in candidates if errors[k] <= error), best)
            times[steps] = times.get(steps) or seconds(classical(steps), 3)[0]
        yield {
            "network": name, "error_db": error, "network_s": ours, "fista_steps": steps,
            "fista_error_db": errors[steps], "fista_reaches_it": errors[steps] <= error,
            "fista_s": times[steps], "fista_over_network": times[steps] / ours,
        }  # fmt: skip


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    result = {"threads": threads, "movies": COUNT}
    for name, rows in {"thresholding": thresholding(), "separation": separation()}.items():
        result[name] = []
        for row in rows:
            row = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()}
            print(name, row, flush=True)
            result[name].append(row)
    result["machine"] = {"cores": os.cpu_count(), "python": platform.python_version()}
    result["machine"]["torch"] = torch.__version__.partition("+")[0]
    path = Path(__file__).resolve().parent / "results/lowrank_speed.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
