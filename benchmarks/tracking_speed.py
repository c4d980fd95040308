"""Filtering many trajectories at once against filterpy, one by one, as ratios in one run.

    python benchmarks/tracking_speed.py [THREADS]

The linear canonical model of two states, r² = 1, q² = 0.01, float64, 100 steps; the same start
before the first step for both, so that all estimates agree. The least of five runs each (filterpy:
of two). Writes benchmarks/results/tracking_speed.json.
"""

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from filterpy.kalman import KalmanFilter
from timing import seconds

from mbdl_course.fold import last
from mbdl_course.learn import seeded
from mbdl_course.tracking import Belief, canonical, filtered, riccati, simulated, steady, white


def filterpy(x, model, start):
    F, H, Q, R = (part.numpy() for part in model)
    estimates = []
    for trajectory in x.unbind(1):
        kf = KalmanFilter(dim_x=2, dim_z=2)
        kf.x, kf.P = start.s.numpy(), start.Sigma.numpy()
        kf.F, kf.H, kf.Q, kf.R = F, H, Q, R
        for z in trajectory.numpy():
            kf.predict()
            kf.update(z)
        estimates.append(kf.x)
    return torch.tensor(np.stack(estimates))


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    model = canonical(2, 0.01, 1.0)
    start = Belief(torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64))
    result = {"threads": threads, "steps": 100, "rows": []}
    for count in (1, 200, 1000, 5000):
        x, _ = simulated(model, start, white(100, count, model, seeded(0)))
        ours, belief = seconds(lambda: last(filtered(x, model, riccati(model), start)))  # noqa: B023
        fixed, _ = seconds(lambda: last(filtered(x, model, steady(model), start)))  # noqa: B023
        row = {"trajectories": count, "kalman_s": ours, "steady_s": fixed}
        if count <= 1000:
            theirs, s = seconds(lambda: filterpy(x, model, start), 2)  # noqa: B023
            row |= {"filterpy_s": theirs, "filterpy_over_kalman": theirs / ours,
                    "largest_difference": (belief.s - s).abs().max().item()}  # fmt: skip
        row = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()}
        print(row, flush=True)
        result["rows"].append(row)
    result["machine"] = {"cores": os.cpu_count(), "python": platform.python_version()}
    result["machine"] |= {name: version(name).partition("+")[0] for name in ("torch", "filterpy")}
    path = Path(__file__).resolve().parent / "results/tracking_speed.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
