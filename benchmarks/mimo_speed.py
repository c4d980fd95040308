"""Training many small receivers at once against one after the other.

    python benchmarks/mimo_speed.py

DeepSIC for 4 users and 4 antennas, five iterations, published widths, 500 pilots: 8 receivers of 20
networks together, as in chapter 14, and each alone, from the same networks and with the same steps
(twelve for each iteration).
"""

import torch
from run import main
from timing import Job, Pair

from mbdl_course.learn import seeded
from mbdl_course.mimo import DeepSIC, sequentially
from mbdl_course.weights.mimo import pilots

WIDTHS = (60, 30)  # the published ones


def trained(model, x, s, steps):
    for _ in sequentially(model, x, s, steps):
        pass
    return torch.cat([p.detach().reshape(*x.shape[1:-2], -1) for p in model.parameters()], -1)


def together(tiny):
    receivers, steps = (2, 1) if tiny else (8, 12)
    data = [pilots(500, seeded(k), 10.0, users=4) for k in range(receivers)]
    x, s = (torch.stack(each, 1) for each in zip(*data, strict=True))

    def all_at_once():
        return trained(DeepSIC(4, 4, 5, (receivers,), WIDTHS, seeded(1)), x, s, steps)

    def alone(k, first):
        model = DeepSIC(4, 4, 5, (), WIDTHS, seeded(1))
        with torch.no_grad():
            for mine, of_all in zip(model.parameters(), first.parameters(), strict=True):
                mine.copy_(of_all[k])
        return trained(model, *data[k], steps)

    def one_by_one():
        first = DeepSIC(4, 4, 5, (receivers,), WIDTHS, seeded(1))
        return torch.stack([alone(k, first) for k in range(receivers)])

    def apart(a, b):  # Adam makes rounding of a gradient near zero a step of its own
        return ((a - b).norm() / b.norm()).item()

    return Job(all_at_once, one_by_one, apart, 1e-2)


PAIRS = [Pair("mimo/DeepSIC-8-receivers", "ours, one by one", together)]

if __name__ == "__main__":
    main(["mimo"])
