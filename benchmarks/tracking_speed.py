"""Filtering many trajectories at once against filterpy, one by one, as ratios in one run.

    python benchmarks/tracking_speed.py [THREADS]

The linear canonical model of two states, r² = 1, q² = 0.01, float64, 100 steps; the same start
before the first step for both, so that all estimates agree. KalmanNet is the chapter's: one GRU of
32 units. The least of five runs each (filterpy:
of two). dynamax, compiled, stands beside where it is installed (it is no part of the environment).
Writes benchmarks/results/tracking_speed.json.
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
from mbdl_course.tracking import (
    Belief,
    KalmanNet,
    OneGRU,
    canonical,
    filtered,
    riccati,
    simulated,
    steady,
    white,
)


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


def dynamax(x, model):
    """The compiled filter of dynamax, over all trajectories at once; None where it is missing."""
    try:
        import jax
        from dynamax.linear_gaussian_ssm import lgssm_filter
        from dynamax.linear_gaussian_ssm.inference import make_lgssm_params
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    F, H, Q, R = (jax.numpy.asarray(part.numpy()) for part in model)
    # its first belief is of the first state: after a start that is known to be zero that is N(0, Q)
    params = make_lgssm_params(jax.numpy.zeros(2), Q, F, Q, H, R)
    run = jax.jit(jax.vmap(lambda y: lgssm_filter(params, y).filtered_means[-1]))
    y = jax.numpy.asarray(x[..., 0].transpose(0, 1).numpy())
    return lambda: run(y).block_until_ready()


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    model = canonical(2, 0.01, 1.0)
    start = Belief(torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64))
    gain = KalmanNet(model, OneGRU(2, 2, wide=4, hidden=4).double().requires_grad_(False))
    result = {"threads": threads, "steps": 100, "rows": []}
    for count in (1, 200, 1000, 5000):
        x, _ = simulated(model, start, white(100, count, model, seeded(0)))
        ours, belief = seconds(lambda: last(filtered(x, model, riccati(model), start)))  # noqa: B023
        fixed, _ = seconds(lambda: last(filtered(x, model, steady(model), start)))  # noqa: B023
        learned, _ = seconds(lambda: last(filtered(x, model, gain, start)))  # noqa: B023
        row = {"trajectories": count, "kalman_s": ours, "steady_s": fixed, "kalmannet_s": learned,
               "kalmannet_over_kalman": learned / ours}  # fmt: skip
        if count <= 1000:
            theirs, s = seconds(lambda: filterpy(x, model, start), 2)  # noqa: B023
            row |= {"filterpy_s": theirs, "filterpy_over_kalman": theirs / ours,
                    "largest_difference": (belief.s - s).abs().max().item()}  # fmt: skip
        if compiled := dynamax(x, model):
            compiled()
            theirs, s = seconds(compiled)
            off = np.abs(np.asarray(s) - belief.s[..., 0].numpy()).max()
            row |= {"dynamax_s": theirs, "dynamax_over_kalman": theirs / ours,
                    "difference_to_dynamax": off}  # fmt: skip
        row = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()}
        print(row, flush=True)
        result["rows"].append(row)
    result["machine"] = {"cores": os.cpu_count(), "python": platform.python_version()}
    result["machine"] |= {name: version(name).partition("+")[0] for name in ("torch", "filterpy")}
    path = Path(__file__).resolve().parent / "results/tracking_speed.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
