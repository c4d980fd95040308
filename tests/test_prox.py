import pytest
import torch
from scipy.optimize import minimize_scalar

from mbdl_course.prox import hard_threshold, keep_largest, soft_threshold

V = torch.tensor([-3.0, -0.7, -0.2, 0.0, 0.3, 0.5, 1.9], dtype=torch.float64)[:, None]


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_soft_threshold_minimises_its_definition(beta):
    def best(v):
        result = minimize_scalar(
            lambda z: beta * abs(z) + (z - v) ** 2 / 2, bounds=(-5, 5), method="bounded",
            options={"xatol": 1e-9},
        )  # fmt: skip
        return result.x

    expected = torch.tensor([[best(v.item())] for v in V])
    torch.testing.assert_close(soft_threshold(V, beta), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("beta", [0.25, 0.6, 1.0])
def test_hard_threshold_minimises_its_definition(beta):
    # only 0 and v can minimise (beta^2/2) [z != 0] + (z - v)^2 / 2: compare the two costs
    cost_zero, cost_v = V.square() / 2, torch.full_like(V, beta**2 / 2)
    expected = torch.where(cost_v < cost_zero, V, torch.zeros_like(V))
    assert torch.equal(hard_threshold(V, beta), expected)


def test_keep_largest_is_the_nearest_sparse_vector():
    from itertools import combinations

    for sparsity in (1, 3, 7):
        nearest = min(
            (torch.zeros_like(V).index_copy(0, i, V[i]) for i in
             map(torch.tensor, combinations(range(7), sparsity))),
            key=lambda z: (z - V).norm(),
        )  # fmt: skip
        assert torch.equal(keep_largest(V, sparsity), nearest)


@pytest.mark.parametrize("sparsity", [0, -1, 8])
def test_keep_largest_refuses_an_impossible_sparsity(sparsity):
    with pytest.raises(ValueError, match=f"sparsity: got {sparsity}, expected 1 to m = 7"):
        keep_largest(V, sparsity)


def test_soft_threshold_has_the_right_gradients():
    v = (V + 0.05).requires_grad_()
    beta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft_threshold, (v, beta))


def test_soft_threshold_is_the_same_for_a_number_and_a_tensor():
    a, b = soft_threshold(V, 0.3), soft_threshold(V, torch.tensor(0.3, dtype=torch.float64))
    torch.testing.assert_close(a, b, atol=1e-15, rtol=0)
    with pytest.raises(ValueError, match="beta: got -0.1"):
        soft_threshold(V, -0.1)


def test_hard_threshold_gives_its_threshold_no_gradient():
    beta = torch.tensor(0.4, requires_grad=True)
    assert not hard_threshold(V.float(), beta).requires_grad


def test_inputs_are_left_alone():
    v = V.clone()
    soft_threshold(v, 0.3), hard_threshold(v, 0.3), keep_largest(v, 2)
    assert torch.equal(v, V)
