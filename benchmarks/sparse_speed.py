"""Batched ISTA, FISTA, ADMM against a loop over signals and against scikit-learn, in one run.

    python benchmarks/sparse_speed.py [THREADS]

1,000 signals x = Hs + w at 20 dB, 5 % of s non-zero. The time of a loop is that of 40 signals,
times 25; every other time is measured on all of them; each is the least of five runs. In the
second part each method stops where its largest relative gap (F(s) - F*)/F* over the signals is no
more than that of scikit-learn, which is called for each signal, and once for all (`one_call`).
Writes benchmarks/results/sparse_speed.json.
"""

import json
import os
import platform
import sys
from importlib.metadata import version
from itertools import islice, repeat
from pathlib import Path

import torch
from sklearn.linear_model import Lasso
from timing import seconds

from mbdl_course.fold import estimate, last
from mbdl_course.learn import seeded
from mbdl_course.sparse import (
    admm,
    fista,
    gaussian_matrix,
    ista,
    lasso,
    lipschitz,
    observed,
    sparse_signals,
)

COUNT, LOOPED, STEPS = 1000, 40, 100
SIZES = [(25, 50, torch.float64), (50, 100, torch.float64), (100, 200, torch.float64),
         (100, 200, torch.float32)]  # fmt: skip


def problem(n, m, dtype=torch.float64):
    g = seeded(0)
    H = gaussian_matrix(n, m, g)
    s = sparse_signals(COUNT, m, g, density=0.05)
    x = observed(s, H, torch.randn(COUNT, n, 1, generator=g, dtype=torch.float64), 20.0)
    return x.to(dtype), H.to(dtype)


def final(algorithm, x, H, theta, steps):
    return estimate(last(algorithm(x, H, repeat(theta, steps))))


def against_the_loop():
    for n, m, dtype in SIZES:
        x, H = problem(n, m, dtype)
        theta = (1 / lipschitz(H).item(), 0.1)
        for algorithm in (ista, fista):
            few = x[:LOOPED]
            loop, one = seconds(lambda: [final(algorithm, v, H, theta, STEPS) for v in few])  # noqa: B023
            batch, s_hat = seconds(lambda: final(algorithm, x, H, theta, STEPS))  # noqa: B023
            torch.testing.assert_close(s_hat[:LOOPED], torch.stack(one), atol=1e-4, rtol=0)
            loop *= COUNT / LOOPED
            yield {
                "algorithm": algorithm.__name__, "n": n, "m": m, "dtype": str(dtype)[6:],
                "loop_s": loop, "batch_s": batch, "loop_over_batch": loop / batch,
            }  # fmt: skip


def against_scikit_learn():
    x, H = problem(100, 200)
    matrix, signals = H.numpy(), x[..., 0].numpy()
    mu = 1 / lipschitz(H).item()
    for rho in (0.1, 0.03):
        best = lasso(final(admm, x, H, (0.5, 1.0, rho), 2000), x, H, rho)

        def gap(s_hat, best=best, rho=rho):
            return (lasso(s_hat, x, H, rho) / best - 1).max().item()

        for tol in (1e-2, 1e-4, 1e-6):
            model = Lasso(alpha=rho / len(H), fit_intercept=False, tol=tol, max_iter=100_000)

            def one_by_one(model=model):
                return torch.stack(
                    [torch.from_numpy(model.fit(matrix, v).coef_.copy()) for v in signals]
                )

            row = {"rho": rho, "sklearn_tol": tol}
            row["sklearn_s"], found = seconds(one_by_one)
            row["gap"] = gap(found[..., None])
            together, found = seconds(lambda model=model: model.fit(matrix, signals.T).coef_)
            row["sklearn_one_call_s"] = together
            row["gap_one_call"] = gap(torch.from_numpy(found)[..., None])
            for algorithm, theta in ((fista, (mu, rho)), (admm, (0.5, 1.0, rho))):
                name = algorithm.__name__
                states = islice(algorithm(x, H, repeat(theta)), 5000)
                steps = next(k for k, state in enumerate(states)
                             if gap(estimate(state)) <= row["gap"])  # fmt: skip
                ours, s_hat = seconds(lambda f=algorithm, t=theta, k=steps: final(f, x, H, t, k))
                row |= {f"{name}_steps": steps, f"{name}_s": ours, f"gap_{name}": gap(s_hat),
                        f"sklearn_over_{name}": row["sklearn_s"] / ours,
                        f"one_call_over_{name}": together / ours}  # fmt: skip
            yield row


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    parts = {"loop": against_the_loop(), "scikit_learn": against_scikit_learn()}
    result = {"threads": threads, "signals": COUNT, "steps": STEPS, "loop_timed_on": LOOPED}
    for name, rows in parts.items():
        result[name] = []
        for row in rows:
            row = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()}
            print(name, row, flush=True)
            result[name].append(row)
    result["machine"] = {"cores": os.cpu_count(), "python": platform.python_version()}
    names = ["torch", "scikit-learn"]
    result["machine"] |= {name: version(name).partition("+")[0] for name in names}
    path = Path(__file__).resolve().parent / "results/sparse_speed.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
