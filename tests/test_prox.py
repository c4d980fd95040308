import cvxpy
import pytest
import torch
from scipy.optimize import minimize_scalar

from mbdl_course.prox import (
    hard_threshold,
    keep_largest,
    row_threshold,
    select_support,
    singular_value_threshold,
    smooth_hard_threshold,
    soft_threshold,
)

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


# ---- support selection, and a hard threshold that can learn ----


def test_select_support_passes_only_the_largest_above_the_threshold():
    v = torch.tensor([3.0, -2.0, 1.0, 0.4, -0.2], dtype=torch.float64)[:, None]
    expected = torch.tensor([3.0, -2.0, 0.5, 0.0, 0.0], dtype=torch.float64)[:, None]
    assert torch.equal(select_support(v, 0.5, 2), expected)
    # an entry among the largest that does not exceed the threshold is not passed
    assert torch.equal(select_support(v, 2.5, 2)[:, 0], torch.tensor([3.0, 0, 0, 0, 0]).double())


@pytest.mark.parametrize("beta", [0.25, 0.6])
def test_select_support_lies_between_soft_and_hard(beta):
    v = torch.randn(5, 9, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(select_support(v, beta, 0), soft_threshold(v, beta))
    assert torch.equal(select_support(v, beta, 9), hard_threshold(v, beta))
    for one, whole in zip(v, select_support(v, beta, 4), strict=True):
        assert torch.equal(select_support(one, beta, 4), whole)


@pytest.mark.parametrize("kept", [-1, 8])
def test_select_support_refuses_an_impossible_count(kept):
    with pytest.raises(ValueError, match=f"kept: got {kept}, expected 0 to m = 7"):
        select_support(V, 0.1, kept)


def gradient_in_threshold(shrink, *more):
    beta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    (shrink(V, beta, *more) - V).square().sum().backward()
    return beta.grad


def test_only_a_hard_threshold_gives_its_threshold_no_gradient():
    beta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert not hard_threshold(V, beta).requires_grad  # cut off altogether
    assert gradient_in_threshold(soft_threshold) > 0
    assert gradient_in_threshold(smooth_hard_threshold) > 0
    assert gradient_in_threshold(select_support, 2) > 0


def test_the_smooth_gate_becomes_the_hard_threshold():
    beta = torch.tensor(0.4, dtype=torch.float64)
    error = [(smooth_hard_threshold(V, beta, w) - hard_threshold(V, beta)).abs().max()
             for w in (0.3, 0.1, 0.03, 0.003)]  # fmt: skip
    assert error == sorted(error, reverse=True) and error[-1] < 1e-6
    v = (V + 0.05).requires_grad_()
    assert torch.autograd.gradcheck(smooth_hard_threshold, (v, beta.requires_grad_()))
    with pytest.raises(ValueError, match="width: got 0"):
        smooth_hard_threshold(V, beta, 0.0)


# ---- Matrices: singular values and rows --------------------------------------------------------

SHAPES = [(6, 3), (3, 6), (4, 4)]
MATRIX_PROX = {
    "singular values": (
        singular_value_threshold, lambda Z: cvxpy.normNuc(Z),
    ),
    "rows": (row_threshold, lambda Z: cvxpy.sum(cvxpy.norm(Z, 2, axis=1))),
}  # fmt: skip


def matrix(n, t, dtype=torch.float64, seed=0):
    return torch.randn(n, t, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("name", MATRIX_PROX)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("beta", [0.4, 1.5])
def test_matrix_thresholds_minimise_their_definition(name, shape, dtype, beta):
    prox, norm = MATRIX_PROX[name]
    v = matrix(*shape, dtype)
    Z = cvxpy.Variable(shape, complex=dtype.is_complex)
    cost = beta * norm(Z) + cvxpy.sum_squares(Z - v.numpy()) / 2
    cvxpy.Problem(cvxpy.Minimize(cost)).solve(solver=cvxpy.CLARABEL)
    torch.testing.assert_close(prox(v, beta), torch.from_numpy(Z.value), atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", MATRIX_PROX)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_matrix_thresholds_have_the_right_gradients(name, shape, dtype):
    prox, _ = MATRIX_PROX[name]
    v = torch.stack([matrix(*shape, dtype, seed) for seed in (0, 1)]).requires_grad_()
    for beta in (torch.tensor(0.7), torch.tensor([0.3, 0.9])[:, None, None]):
        beta = beta.double().requires_grad_()
        assert torch.autograd.gradcheck(prox, (v, beta))


@pytest.mark.parametrize("sigma", [
    [2, 2, 1, 1], [2, 2, 0.1, 0.1], [3, 3, 3, 3], [2, 1, 0, 0], [0.1, 0.1, 0, 0], [0, 0, 0, 0],
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_at_equal_and_at_zero_singular_values(sigma, dtype):
    U, W = torch.linalg.qr(matrix(6, 4, dtype)).Q, torch.linalg.qr(matrix(4, 4, dtype, 1)).Q
    v = (U * torch.tensor(sigma, dtype=dtype) @ W).requires_grad_()
    beta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(singular_value_threshold, (v, beta))
    for prox in (singular_value_threshold, row_threshold):
        for value in (0.0, 0.7):  # also where it is not differentiable, what comes is finite
            beta = torch.tensor(value, dtype=torch.float64, requires_grad=True)
            grads = torch.autograd.grad(prox(v, beta).abs().square().sum(), (v, beta))
            assert all(grad.isfinite().all() for grad in grads)


def test_plain_svd_has_no_gradient_at_equal_singular_values():
    v = torch.eye(4, dtype=torch.float64).requires_grad_()
    U, s, Wh = torch.linalg.svd(v)
    (grad,) = torch.autograd.grad(((U * (s - 0.3)) @ Wh).square().sum(), v)
    assert not grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_the_gram_matrix_loses_nothing_that_is_kept(dtype):
    v = matrix(256, 12, dtype) * torch.logspace(2, -3, 12)
    U, s, Wh = torch.linalg.svd(v.to(torch.promote_types(dtype, torch.float64)),
                                full_matrices=False)  # fmt: skip
    for beta in (0.0, 0.5, 20.0):
        expected = (U * (s - beta).clamp(min=0)) @ Wh
        error = (singular_value_threshold(v, beta) - expected).norm() / v.norm()
        assert error < 1e-5


def test_matrix_thresholds_at_their_limits():
    v = matrix(5, 3)
    for prox, top in ((singular_value_threshold, torch.linalg.matrix_norm(v, 2)),
                      (row_threshold, v.norm(dim=-1).max())):  # fmt: skip
        torch.testing.assert_close(prox(v, 0.0), v)
        assert prox(v, 1.0001 * top).abs().max() == 0
        with pytest.raises(ValueError, match="beta: got -0.1"):
            prox(v, -0.1)
        stack = torch.stack([v, 2 * v])
        torch.testing.assert_close(prox(stack, 0.5)[1], prox(2 * v, 0.5))
