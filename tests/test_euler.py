"""A residual layer is an Euler step: orders, an outside solver, networks that are algorithms."""

import math
from itertools import islice, repeat

import pytest
import torch
from scipy.integrate import solve_ivp
from sklearn.linear_model import Lasso
from torch import nn

from mbdl_course.equilibrium import Equilibrium
from mbdl_course.euler import euler, flow, heun, pendulum, refined, rk4
from mbdl_course.fold import last
from mbdl_course.learn import seeded
from mbdl_course.networks import Columns, parameters
from mbdl_course.sparse import gaussian_matrix, ista, lipschitz, observed, sparse_signals
from mbdl_course.unfold import Thetas, Unfolded

D = torch.float64
swing, T = pendulum(0.3), 2.0
starts = 3 * torch.rand(6, 2, 1, generator=seeded(1), dtype=D) - 1.5
H = gaussian_matrix(20, 40, seeded(2))
x = observed(sparse_signals(4, 40, seeded(3), sparsity=3).abs(), H, torch.zeros(4, 20, 1).double())
MU = 1 / lipschitz(H).item()


def ends(rule, count):
    return last(flow(starts, swing, refined(T, count), rule))


def test_an_outside_solver_agrees():
    def slope(t, s):
        return [s[1], -math.sin(s[0]) - 0.3 * s[1]]

    for start, end in zip(starts, ends(rk4, 200), strict=True):
        oracle = solve_ivp(slope, (0, T), start[:, 0].numpy(), rtol=1e-11, atol=1e-12).y[:, -1]
        torch.testing.assert_close(end[:, 0], torch.from_numpy(oracle), atol=1e-8, rtol=0)


@pytest.mark.parametrize(("rule", "order"), [(euler, 1), (heun, 2), (rk4, 4)])
def test_the_error_at_a_fixed_time_falls_with_the_order(rule, order):
    exact = ends(rk4, 2000)
    errors = [(ends(rule, count) - exact).norm().item() for count in (32, 64, 128)]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([order] * 2, abs=0.1)


def test_a_gradient_step_is_an_euler_step():
    """ISTA with ρ = 0 is the gradient flow's Euler method, and μ < 2/L its limit of stability."""

    def descent(s):
        return H.mT @ (x - H @ s)

    zero = torch.zeros(4, 40, 1, dtype=D)
    states = islice(flow(zero, descent, repeat(MU)), 30)
    for a, b in zip(states, ista(x, H, repeat((MU, 0.0))), strict=False):
        torch.testing.assert_close(a, b, atol=1e-13, rtol=0)
    below, above = (last(flow(zero, descent, repeat(h * MU, 2000))).abs().max() for h in (1.9, 2.1))
    assert below < 10 < 1e6 < above


def test_a_residual_network_is_the_fold():
    """Linear layers with a shortcut, written out, against `Unfolded(flow, ...)`; it learns field
    and step sizes, and starts as the solver."""
    body = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    model = Unfolded(flow, Thetas((0.25,), 4, dtype=D), H=Columns(body))
    s = starts[..., 0]
    for _ in range(4):
        s = s + 0.25 * body(s)
    torch.testing.assert_close(model(starts)[..., 0], s, atol=1e-14, rtol=0)
    assert parameters(model) == parameters(body) + 4
    model(starts).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    filled = Unfolded(flow, Thetas((0.25,), 4, dtype=D), H=swing, rule=heun)
    for a, b in zip(filled.states(starts), flow(starts, swing, repeat(0.25), heun), strict=False):
        torch.testing.assert_close(a, b, atol=1e-14, rtol=0)


def test_batch_dtype_and_purity():
    before = starts.clone()
    torch.testing.assert_close(
        ends(heun, 20)[1:2], last(flow(starts[1:2], swing, refined(T, 20), heun))
    )
    assert torch.equal(starts, before)
    assert last(flow(starts.float(), swing, refined(T, 3))).dtype == torch.float32


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="s: got shape"):
        flow(starts[..., 0], swing, refined(T, 3))
    with pytest.raises(ValueError, match=r"field: got \(6, 1, 1\), expected the shape"):
        flow(starts, lambda s: s[:, :1], refined(T, 3))
    with pytest.raises(ValueError, match="time, count: got 2.0 and 0"):
        refined(T, 0)
    with pytest.raises(ValueError, match="damping: got -1"):
        pendulum(-1)


def nonnegative(v, beta):
    return (v - beta).relu()


def test_a_relu_network_is_nonnegative_ista_and_its_limit_solves_the_lasso():
    """Linear + ReLU on (x⁺, x⁻, s), state by state; scikit-learn solves the same problem."""
    n, m, rho, K = 20, 40, 0.05, 8
    W1, W2 = MU * H.mT, torch.eye(m, dtype=D) - MU * H.mT @ H
    carry = torch.cat([torch.eye(2 * n, dtype=D), torch.zeros(2 * n, m, dtype=D)], 1)
    layer = nn.Linear(2 * n + m, 2 * n + m, dtype=D).requires_grad_(False)
    layer.weight.copy_(torch.cat([carry, torch.cat([W1, -W1, W2], 1)]))
    layer.bias.copy_(torch.cat([torch.zeros(2 * n), torch.full((m,), -MU * rho, dtype=D)]))
    z = torch.cat([x.relu(), (-x).relu(), torch.zeros(4, m, 1, dtype=D)], -2)[..., 0]
    for s in islice(ista(x, H, repeat((MU, rho)), shrink=nonnegative), 1, K + 1):
        z = layer(z).relu()
        torch.testing.assert_close(z[:, 2 * n :, None], s, atol=1e-12, rtol=0)
    one = Unfolded(ista, Thetas((MU, rho), 1, dtype=D), H=H, shrink=nonnegative)
    s = Equilibrium(one, tolerance=1e-13, most=50_000)(x).detach()
    solver = Lasso(alpha=rho / n, positive=True, fit_intercept=False, tol=1e-12, max_iter=100_000)
    for ours, signal in zip(s, x, strict=True):
        oracle = torch.from_numpy(solver.fit(H.numpy(), signal[:, 0].numpy()).coef_)
        torch.testing.assert_close(ours[:, 0], oracle, atol=1e-6, rtol=0)
