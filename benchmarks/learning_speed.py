"""Training an unfolded ISTA: ours against the unfolded proximal gradient of deepinv.

    python benchmarks/learning_speed.py

x = Hs + w, 50 x 100, 20 dB; ten layers with a step and a weight each, 100 steps of Adam on the same
batches of 128, float32. Both are the same function at first. "numbers": both learn the step and the
weight themselves, at the same rates, and end at the same error (NMSE in dB, other signals).
"logarithms": as ours does it, with the best of the rates 0.01, 0.03 and 0.1 for each; our error
must be no larger.
"""

from functools import partial
from itertools import islice

import torch
from run import main
from timing import Job, Pair

from mbdl_course.evaluate import nmse_db
from mbdl_course.learn import Stage, draws, seeded, squared_error, training
from mbdl_course.sparse import gaussian_matrix, ista, lipschitz, observed, sparse_signals
from mbdl_course.unfold import Thetas, Unfolded

DEPTH, RHO = 10, 0.1
H = gaussian_matrix(50, 100, seeded(0), dtype=torch.float32)
MU = 1 / lipschitz(H).item()


def problem(count, g):
    s = sparse_signals(count, 100, g, density=0.05, dtype=torch.float32)
    return observed(s, H, torch.randn(count, 50, 1, generator=g), 20.0), s


def network(logarithms):
    """Numbers are learned as logarithms, vectors of one entry as they are."""
    theta = (MU, RHO) if logarithms else (torch.tensor([MU]), torch.tensor([RHO]))
    return Unfolded(ista, Thetas(theta, DEPTH), H=H)


def proximal_gradient():
    """deepinv's network, and its operator, as one function of x; and its parameters."""
    declare()
    from deepinv.optim import L2, PGD, L1Prior
    from deepinv.physics import LinearPhysics

    physics = LinearPhysics(A=lambda s, **_: H @ s, A_adjoint=lambda x, **_: H.mT @ x)

    def zero(x, physics):
        return {"est": (x.new_zeros(len(x), 100, 1),) * 2}

    net = PGD(data_fidelity=L2(), prior=L1Prior(), lambda_reg=[RHO] * DEPTH, stepsize=[MU] * DEPTH,
              max_iter=DEPTH, unfold=True, trainable_params=["lambda", "stepsize"],
              custom_init=zero)  # fmt: skip
    return partial(net, physics=physics), net


def declare():
    """torchvision's plain wheel cannot load its compiled operators under the CPU build of torch,
    and its import then fails for two that deepinv never calls: give them names."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        declare.library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            declare.library.define(name + "(Tensor dets, Tensor scores, float t) -> Tensor")


def adam(rate, *groups):
    """Steps as large, at first, as those of a logarithm at this rate."""
    return torch.optim.Adam([{"params": [*params], "lr": rate * at} for params, at in groups])


def descended(predict, optimizer, size, steps):
    for x, s in islice(draws(problem, size, 2), steps):
        optimizer.zero_grad()
        squared_error(predict(x), s).backward()
        optimizer.step()
    return predict


def deepinv(logarithms, tiny):
    steps, size = (3, 4) if tiny else (100, 128)
    x, s = problem(1000, seeded(1))

    def ours():
        net = network(logarithms)
        if not logarithms:
            mus, rhos = zip(*net.thetas.layers, strict=True)
            return descended(net, adam(0.03, (mus, MU), (rhos, RHO)), size, steps)
        for _ in training(net, draws(problem, size, 2), squared_error, [Stage(steps, 0.03, False)]):
            pass
        return net

    def theirs():
        predict, net = proximal_gradient()
        mus, rhos = net.params_algo["stepsize"], net.params_algo["lambda"]
        rate = 0.1 if logarithms else 0.03
        return descended(predict, adam(rate, (mus, MU), (rhos, RHO)), size, steps)

    @torch.no_grad()
    def apart(a, b):
        behind = (nmse_db(a(x), s) - nmse_db(b(x), s)).item()
        return max(0, behind) if logarithms else abs(behind)

    with torch.no_grad():
        first, second = network(logarithms)(x), proximal_gradient()[0](x)
        torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    return Job(ours, theirs, apart, 5.0 if tiny else 1e-2)  # three steps reach nothing


PAIRS = [
    Pair(f"learning/unfolded-ISTA-{'logarithms' if logarithms else 'numbers'}",
         "deepinv unfolded PGD", partial(deepinv, logarithms), "deepinv")
    for logarithms in (False, True)
]  # fmt: skip

if __name__ == "__main__":
    main(["learning"])
