"""The filling law: a learned method, filled with the model's own part, is the classical method.

One line per method, state by state, in float64. A method without its line here is not done.
"""

from itertools import islice, repeat

import pytest
import torch

from mbdl_course.sparse import (
    LISTA,
    UnfoldedADMM,
    admm,
    fista,
    gaussian_matrix,
    ista,
    lipschitz,
    observed,
    sparse_signals,
)
from mbdl_course.unfold import Thetas, Unfolded

g = torch.Generator().manual_seed(1)
H = gaussian_matrix(30, 60, g)
S = sparse_signals(7, 60, g, sparsity=4)
X = observed(S, H, torch.randn(7, 30, 1, generator=g, dtype=torch.float64), snr_db=20)
MU, RHO, LAM, K = 1 / lipschitz(H).item(), 0.03, 0.07, 12
D = torch.float64

# name -> (the method at its initialisation, the classical method)
FILLINGS = {
    "learned ISTA (tied θ)": (
        Unfolded(ista, Thetas((MU, RHO), K, tied=True, dtype=D), H=H), ista(X, H, repeat((MU, RHO)))
    ),
    "unfolded ISTA (θ per layer)": (
        Unfolded(ista, Thetas((MU, RHO), K, dtype=D), H=H), ista(X, H, repeat((MU, RHO)))
    ),
    "unfolded FISTA": (
        Unfolded(fista, Thetas((MU, RHO), K, dtype=D), H=H), fista(X, H, repeat((MU, RHO)))
    ),
    "LISTA": (LISTA(H, (MU, RHO), K), ista(X, H, repeat((MU, RHO)))),
    "LISTA, shared matrices": (LISTA(H, (MU, RHO), K, tied=(0, 1)), ista(X, H, repeat((MU, RHO)))),
    "learned ADMM (tied θ)": (
        Unfolded(admm, Thetas((LAM, 1.0, RHO), K, tied=True, dtype=D), H=H),
        admm(X, H, repeat((LAM, 1.0, RHO))),
    ),
    "unfolded ADMM (θ per layer)": (
        Unfolded(admm, Thetas((LAM, 1.0, RHO), K, dtype=D), H=H),
        admm(X, H, repeat((LAM, 1.0, RHO))),
    ),
    "unfolded ADMM (W1, W2 per layer)": (
        UnfoldedADMM(H, (LAM, 1.0, RHO), K), admm(X, H, repeat((LAM, 1.0, RHO)))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILLINGS)
def test_filled_with_the_model_it_is_the_classical_method(name):
    network, classical = FILLINGS[name]
    learned = list(network.states(X))
    assert len(learned) == K + 1
    for ours, theirs in zip(learned, islice(classical, K + 1), strict=True):
        fields = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
        for a, b in fields:
            torch.testing.assert_close(
                torch.as_tensor(a), torch.as_tensor(b), atol=1e-12, rtol=0, check_dtype=False
            )


def test_a_wrong_filling_is_noticed():
    wrong = Unfolded(ista, Thetas((MU, RHO * 1.01), K, dtype=D), H=H)
    a, b = list(wrong.states(X))[-1], list(islice(ista(X, H, repeat((MU, RHO))), K + 1))[-1]
    assert (a - b).abs().max() > 1e-6
