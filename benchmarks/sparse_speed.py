"""Sparse recovery: ISTA, FISTA, ADMM against pylops, scikit-learn and a loop of our own.

    python benchmarks/sparse_speed.py

x = Hs + w at 20 dB, 5 % of s non-zero. With pylops (and with our own code, signal by signal) both
take 100 steps for 1,000 signals; what is done signal by signal is timed on 40 of them. With
scikit-learn, 200 signals, ours stops where its largest relative gap (F(s) − F*)/F* over the signals
is no more than that of scikit-learn, which is called for each signal, or once for all.
"""

from functools import partial
from itertools import islice, repeat

import torch
from run import main
from timing import Job, Pair

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

RHO, STEPS = 0.1, 100
SIZES = [(25, 50, torch.float64), (50, 100, torch.float64), (100, 200, torch.float64),
         (100, 200, torch.float32)]  # fmt: skip


def problem(count, n=100, m=200, dtype=torch.float64):
    g = seeded(0)
    H = gaussian_matrix(n, m, g)
    s = sparse_signals(count, m, g, density=0.05)
    x = observed(s, H, torch.randn(count, n, 1, generator=g, dtype=torch.float64), 20.0)
    return x.to(dtype), H.to(dtype)


def final(algorithm, x, H, theta, steps):
    return estimate(last(algorithm(x, H, repeat(theta, steps))))


def largest(ours, theirs):
    """The largest difference to the part of our answers that they have too."""
    return (ours[: len(theirs)] - theirs).abs().max().item()


def looped(algorithm, n, m, dtype, tiny):
    count, few = (8, 2) if tiny else (1000, 40)
    x, H = problem(count, n, m, dtype)
    theta = (1 / lipschitz(H).item(), RHO)
    return Job(
        lambda: final(algorithm, x, H, theta, STEPS),
        lambda: torch.stack([final(algorithm, v, H, theta, STEPS) for v in x[:few]]),
        largest,
        1e-12 if dtype == torch.float64 else 1e-4,
        count / few,
    )


def pylops(algorithm, kind, tiny):
    """kind: "one" signal, 1,000 that pylops takes "one-by-one", or both as a "batch"."""
    from pylops import MatrixMult
    from pylops.optimization import sparsity

    count = 1 if kind == "one" else 8 if tiny else 1000
    few = count if kind != "one-by-one" else 2 if tiny else 40
    x, H = problem(count)
    mu = 1 / lipschitz(H).item()
    solve, operator = getattr(sparsity, algorithm.__name__), MatrixMult(H.numpy())

    def theirs(y):  # its objective is ‖y − Hs‖² + eps‖s‖₁, and it stops for small steps unless told
        return solve(operator, y, niter=STEPS, eps=2 * RHO, alpha=mu, tol=0)[0]

    def all_of():
        y = x[:few, :, 0].numpy()
        if kind == "batch":
            return torch.from_numpy(theirs(y.T).T)[..., None]
        return torch.stack([torch.from_numpy(theirs(each))[..., None] for each in y])

    ours = partial(final, algorithm, x, H, (mu, RHO), STEPS)
    return Job(ours, all_of, largest, 1e-11, count / few)


def scikit_learn(algorithm, tol, one_call, tiny):
    from sklearn.linear_model import Lasso

    x, H = problem(4 if tiny else 200)
    matrix, signals = H.numpy(), x[..., 0].numpy()
    model = Lasso(alpha=RHO / len(H), fit_intercept=False, tol=tol, max_iter=100_000)

    def theirs():
        if one_call:
            return torch.from_numpy(model.fit(matrix, signals.T).coef_)[..., None]
        found = [torch.from_numpy(model.fit(matrix, v).coef_.copy()) for v in signals]
        return torch.stack(found)[..., None]

    best = lasso(final(admm, x, H, (0.5, 1.0, RHO), 300 if tiny else 2000), x, H, RHO)

    def gap(s_hat):
        return (lasso(s_hat, x, H, RHO) / best - 1).max().item()

    goal = gap(theirs())
    theta = (0.5, 1.0, RHO) if algorithm is admm else (1 / lipschitz(H).item(), RHO)
    states = islice(algorithm(x, H, repeat(theta)), 20_000)
    steps = next(k for k, state in enumerate(states) if gap(estimate(state)) <= goal)
    ours = partial(final, algorithm, x, H, theta, steps)
    return Job(ours, theirs, lambda a, b: max(0, gap(a) - gap(b)), 1e-12)


PAIRS = [
    *(Pair(f"sparse/{a.__name__}-loop-{n}x{m}-{str(dtype)[6:]}", "ours, one by one",
           partial(looped, a, n, m, dtype)) for a in (ista, fista) for n, m, dtype in SIZES),
    *(Pair(f"sparse/{a.__name__}-pylops-{kind}", f"pylops {a.__name__}",
           partial(pylops, a, kind), "pylops")
      for a in (ista, fista)
      for kind in ("one", "one-by-one", "batch")),
    *(Pair(f"sparse/{a.__name__}-lasso-{tol:g}-{'one-call' if one_call else 'one-by-one'}",
           "scikit-learn Lasso", partial(scikit_learn, a, tol, one_call), "sklearn")
      for a in (ista, fista, admm) for tol in (1e-2, 1e-4) for one_call in (False, True)),
]  # fmt: skip

if __name__ == "__main__":
    main(["sparse"])
