"""Training many small receivers at once against one after the other, as a ratio in one run.

    python benchmarks/mimo_speed.py [THREADS]

DeepSIC for 4 users and 4 antennas, five iterations, 5,000 pilots, 60 steps each: 8 receivers of
20 networks together, as in chapter 14, and each alone; the same steps of the same networks. The
least of three runs. Writes benchmarks/results/mimo_speed.json.
"""

import json
import platform
import sys
from pathlib import Path

import torch
from timing import seconds

from mbdl_course.learn import seeded
from mbdl_course.mimo import DeepSIC, sequentially
from mbdl_course.weights.mimo import pilots

RECEIVERS, STEPS, WIDTHS = 8, 60, (60, 30)  # the published widths


def train(x, s, receivers):
    model = DeepSIC(4, 4, 5, receivers, WIDTHS, seeded(1))
    for _ in sequentially(model, x, s, STEPS):
        pass


def main(threads=1):
    torch.set_num_threads(threads)
    data = [pilots(5000, seeded(seed), 10.0, users=4) for seed in range(RECEIVERS)]
    x, s = (torch.stack(each, 1) for each in zip(*data, strict=True))
    together, _ = seconds(lambda: train(x, s, (RECEIVERS,)), 3)
    alone, _ = seconds(lambda: [train(*one, ()) for one in data], 3)
    found = {
        "together_s": round(together, 2),
        "one_by_one_s": round(alone, 2),
        "ratio": round(alone / together, 2),
        "threads": threads,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    path = Path(__file__).resolve().parent / "results/mimo_speed.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
