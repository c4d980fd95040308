"""Unrolled networks against FISTA at equal error.

    python benchmarks/unrolled_speed.py

Noiseless 100 x 200 problem, shipped weights of ten layers. For each network: the error it reaches
on 1,000 test signals, and the fewest FISTA iterations that reach it on 200 of them with any ρ of a
grid. Both are timed on the 1,000 signals at once and on one signal; on all of them FISTA's error
must be as small, but for 0.5 dB.
"""

from functools import cache, partial
from itertools import islice, repeat

import torch
from run import main
from timing import Job, Pair

from mbdl_course import weights
from mbdl_course.evaluate import nmse_db
from mbdl_course.fold import last
from mbdl_course.sparse import fista, lipschitz

RHOS = (0.02, 0.05, 0.1, 0.2, 0.01, 3e-3, 1e-3, 1e-4, 1e-5)


def network(name):
    of_all = {"lista": weights.shipped("lista_minute")}
    return of_all.get(name) or weights.shipped("family_100")[name]


def problem(tiny):
    x, s = (t[: 20 if tiny else 1000] for t in weights.test_set("family_100"))
    H = weights.shipped("lista_minute").H
    return x, s, H, 1 / lipschitz(H).item()


@cache
@torch.no_grad()
def cheapest(name, tiny):
    """The network's error in dB, the fewest iterations of FISTA for it, and their ρ."""
    x, s, H, mu = problem(tiny)
    goal = -10.0 if tiny else nmse_db(network(name)(x), s).item()
    x, s, steps, best = x[:200], s[:200], 2000, None
    for rho in RHOS:
        for k, state in enumerate(islice(fista(x, H, repeat((mu, rho))), steps)):
            if nmse_db(state.s, s) <= goal:
                steps, best = k, rho
                break
    return goal, steps, best


def equal_error(name, count, tiny):
    x, s, H, mu = problem(tiny)
    net, (goal, steps, rho) = network(name), cheapest(name, tiny)

    def fista_of(x):
        return last(fista(x, H, repeat((mu, rho), steps))).s

    def behind(*_):  # on all signals: one of them says little
        return max(0, nmse_db(fista_of(x), s).item() - goal)

    @torch.no_grad()
    def ours():
        return net(x[:count])

    return Job(ours, lambda: fista_of(x[:count]), behind, 0.5)


PAIRS = [
    Pair(f"unrolled/{name}-{count}", "FISTA at equal error", partial(equal_error, name, count))
    for name in ("numbers", "cp", "cpss", "alista_ss", "lista")
    for count in (1000, 1)
]

if __name__ == "__main__":
    main(["unrolled"])
