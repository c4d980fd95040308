"""Unrolled networks against FISTA at equal error, in one run.

    python benchmarks/unrolled_speed.py

Noiseless 100 x 200 problem, shipped weights of ten layers. For each network: the error it reaches
on the test signals, the fewest FISTA iterations that reach it with any ρ of a grid, and the time of
both, for 1,000 signals at once and for one signal. Each time is the least of seven runs, one
thread. Writes benchmarks/results/unrolled_speed.json.
"""

import json
import platform
from importlib.metadata import version
from itertools import islice, repeat
from pathlib import Path

import torch
from timing import seconds

from mbdl_course import weights
from mbdl_course.evaluate import nmse_db
from mbdl_course.fold import last
from mbdl_course.sparse import fista, lipschitz

RHOS = (1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.02, 0.05, 0.1, 0.2)


def cheapest(x, s, H, goal, most=2000):
    """The fewest iterations of FISTA for an error of `goal` dB, and their ρ."""
    mu, found = 1 / lipschitz(H).item(), []
    for rho in RHOS:
        for k, state in enumerate(islice(fista(x, H, repeat((mu, rho))), most + 1)):
            if nmse_db(state.s, s) <= goal:
                found.append((k, rho))
                break
    return min(found)


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    networks = dict(weights.shipped("family_100").items())
    networks = {key: networks[key] for key in ("numbers", "cp", "cpss", "alista_ss")}
    networks["lista"] = weights.shipped("lista_minute")
    x, s = (t[:1000] for t in weights.test_set("family_100"))
    H, rows = networks["lista"].H, []
    mu = 1 / lipschitz(H).item()
    for name, network in networks.items():
        goal = nmse_db(network(x), s).item()
        steps, rho = cheapest(x[:200], s[:200], H, goal)
        row = {"network": name, "nmse_db": round(goal, 1), "fista_steps": steps, "rho": rho}
        for count in (1000, 1):
            here = seconds(lambda: network(x[:count]), 7)[0]  # noqa: B023
            there = seconds(lambda: last(fista(x[:count], H, repeat((mu, rho), steps))), 7)[0]  # noqa: B023
            row[f"fista_over_network_batch_{count}"] = round(there / here, 2)
        rows.append(row)
        print(row, flush=True)
    path = Path(__file__).parent / "results" / "unrolled_speed.json"
    about = {"python": platform.python_version(), "torch": version("torch").partition("+")[0]}
    path.write_text(json.dumps({"rows": rows, "versions": about, "threads": 1}, indent=1) + "\n")


if __name__ == "__main__":
    main()
