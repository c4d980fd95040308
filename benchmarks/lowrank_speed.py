"""Singular-value thresholding against torch.linalg.svd, unfolded separation against FISTA.

    python benchmarks/lowrank_speed.py

100 movies (pixels x frames, complex64 and float32), thresholded at half the largest singular value
through the Gram matrix; by SVD one by one, and all at once. Then 100 movies of 16 x 16 x 12 and the
shipped networks against FISTA, with the weights that were best on 40 other movies: from zero for 61
iterations, where its error on S is least, and from the SVD filter for ten. The networks' errors
must be no larger.
"""

from functools import cache, partial
from itertools import product, repeat

import torch
from run import main
from timing import Job, Pair

from mbdl_course import weights
from mbdl_course.fold import last
from mbdl_course.learn import seeded
from mbdl_course.lowrank import fista, separation_db, svd_filter
from mbdl_course.prox import singular_value_threshold
from mbdl_course.weights.lowrank import bubbles

COUNT = 100
SIZES = [(256, 12), (1024, 20), (4096, 20), (64, 48)]
GRID = [(0.5, rho_S, factor * rho_S) for rho_S in (0.05, 0.1, 0.2, 0.4) for factor in (3, 5, 8)]


def by_svd(V, beta):
    U, sigma, Wh = torch.linalg.svd(V, full_matrices=False)
    return (U * (sigma - beta).clamp(min=0)[..., None, :]) @ Wh


def thresholding(pixels, frames, dtype, one_by_one, tiny):
    count = 2 if tiny else COUNT
    V = torch.randn(count, pixels, frames, generator=seeded(0), dtype=dtype)
    beta = torch.linalg.matrix_norm(V[0], 2).item() / 2

    def theirs():
        return torch.stack([by_svd(v, beta) for v in V]) if one_by_one else by_svd(V, beta)

    def apart(a, b):
        return (a - b).abs().max().item() / beta

    return Job(lambda: singular_value_threshold(V, beta), theirs, apart, 1e-3)


def final(x, theta, steps, warm):
    return last(fista(x, None, repeat(theta, steps), start=svd_filter(x, 1) if warm else None)).S


@cache
def tuned(steps, warm, count):
    x, parts = bubbles(count, seeded(3002))
    return min(GRID, key=lambda theta: separation_db(final(x, theta, steps, warm), parts.S).item())


def separation(layers, steps, warm, tiny):
    x, parts = bubbles(4 if tiny else COUNT, seeded(3001))
    network, theta = (
        weights.shipped("corona")[f"corona_k{layers}_n400"],
        tuned(steps, warm, 2 if tiny else 40),
    )

    @torch.no_grad()
    def ours():
        return network(x)

    def apart(a, b):
        return max(0, (separation_db(a, parts.S) - separation_db(b, parts.S)).item())

    return Job(ours, lambda: final(x, theta, steps, warm), apart, 0)


PAIRS = [
    *(Pair(f"lowrank/threshold-{pixels}x{frames}-{str(dtype)[6:]}-{'loop' if loop else 'batch'}",
           "torch.linalg.svd", partial(thresholding, pixels, frames, dtype, loop))
      for (pixels, frames), dtype, loop in
      product(SIZES, (torch.complex64, torch.float32), (True, False))),
    *(Pair(f"lowrank/CORONA-{layers}-FISTA-{steps}",
           f"FISTA from {'the SVD filter' if warm else 'zero'}",
           partial(separation, layers, steps, warm))
      for layers, steps, warm in ((3, 61, False), (5, 61, False), (3, 10, True))),
]  # fmt: skip

if __name__ == "__main__":
    main(["lowrank"])
