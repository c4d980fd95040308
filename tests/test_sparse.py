import math
from itertools import combinations, cycle, islice, repeat

import cvxpy
import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from mbdl_course.fold import estimate, last, until
from mbdl_course.networks import parameters
from mbdl_course.operators import Chain, Mask, Separable, dct_basis
from mbdl_course.sparse import (
    ALISTA,
    LISTA_CP,
    admm,
    analytic_weights,
    coherence,
    coordinate_descent,
    fista,
    gaussian_matrix,
    greedy_descent,
    iht,
    ista,
    kkt_residual,
    lasso,
    least_squares_on,
    lipschitz,
    observed,
    sparse_signals,
    support_schedule,
    transition,
)
from mbdl_course.unfold import Fixed, Thetas

N, M = 40, 80


def problem(seed=0, count=3, sparsity=4, snr_db=20.0, n=N, m=M):
    g = torch.Generator().manual_seed(seed)
    H = gaussian_matrix(n, m, g)
    s = sparse_signals(count, m, g, sparsity=sparsity)
    x = observed(s, H, torch.randn(count, n, 1, generator=g, dtype=torch.float64), snr_db)
    return x, s, H


def solved(method, x, H, rho):
    mu = 1 / lipschitz(H).item()
    states = {
        "ista": lambda: islice(ista(x, H, repeat((mu, rho))), 5_000),
        "fista": lambda: islice(fista(x, H, repeat((mu, rho))), 3_000),
        "admm": lambda: islice(admm(x, H, repeat((0.5, 1.0, rho))), 1_000),
        "coordinate descent": lambda: islice(
            coordinate_descent(x, H, rho, cycle(range(H.shape[1]))), 200 * H.shape[1]
        ),
    }[method]()
    return estimate(last(states))


METHODS = ["ista", "fista", "admm", "coordinate descent"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rho", [0.02, 0.1])
def test_limit_is_scikit_learns_lasso(method, rho):
    x, _, H = problem()
    ours = lasso(solved(method, x, H, rho), x, H, rho)
    for i, signal in enumerate(x):
        # scikit-learn divides the square by n and fits an intercept unless told not to
        model = Lasso(alpha=rho / N, fit_intercept=False, tol=1e-14, max_iter=1_000_000)
        model.fit(H.numpy(), signal[:, 0].numpy())
        theirs = lasso(torch.from_numpy(model.coef_)[:, None], signal, H, rho)
        assert abs(ours[i] / theirs - 1) < 1e-8


@pytest.mark.parametrize("seed", range(5))
def test_limit_is_cvxpys_lasso(seed):
    x, _, H = problem(seed, count=1, n=15, m=25, sparsity=3)
    rho = 0.05
    s = cvxpy.Variable((25, 1))
    cost = cvxpy.sum_squares(x[0].numpy() - H.numpy() @ s) / 2 + rho * cvxpy.norm1(s)
    best = cvxpy.Problem(cvxpy.Minimize(cost)).solve(
        solver=cvxpy.CLARABEL, tol_gap_rel=1e-12, tol_gap_abs=1e-12, tol_feas=1e-12
    )
    for method in METHODS:
        assert abs(lasso(solved(method, x, H, rho), x, H, rho).item() / best - 1) < 1e-8


@pytest.mark.parametrize("method", METHODS)
def test_kkt_holds_at_the_limit_and_not_before(method):
    x, _, H = problem()
    assert kkt_residual(solved(method, x, H, 0.05), x, H, 0.05).max() < 1e-8
    assert kkt_residual(torch.zeros(3, M, 1).double(), x, H, 0.05).min() > 1e-2


def test_ista_and_fista_keep_their_rates():
    x, s, H = problem()
    rho, L = 0.02, lipschitz(H).item()
    best = lasso(solved("fista", x, H, rho), x, H, rho)
    optimum = solved("fista", x, H, rho)
    d2 = optimum.square().sum((-2, -1))
    for k, (a, b) in enumerate(zip(
        islice(ista(x, H, repeat((1 / L, rho))), 300),
        islice(fista(x, H, repeat((1 / L, rho))), 300), strict=True,
    )):  # fmt: skip
        if k:
            assert (lasso(a, x, H, rho) - best <= L * d2 / (2 * k) + 1e-12).all()
            assert (lasso(b.s, x, H, rho) - best <= 2 * L * d2 / (k + 1) ** 2 + 1e-12).all()


def test_ista_never_increases_the_objective_at_the_safe_step():
    x, _, H = problem()
    values = [lasso(s, x, H, 0.05) for s in
              islice(ista(x, H, repeat((1 / lipschitz(H).item(), 0.05))), 100)]  # fmt: skip
    assert all((b <= a + 1e-12).all() for a, b in zip(values, values[1:], strict=False))


def test_ista_diverges_beyond_twice_the_safe_step():
    x, _, H = problem()
    mu = 2.5 / lipschitz(H).item()
    assert lasso(last(islice(ista(x, H, repeat((mu, 0.01))), 200)), x, H, 0.01).min() > 1e6


def test_iht_finds_the_best_subset_without_noise():
    x, s, H = problem(sparsity=2, snr_db=math.inf, n=20, m=12)
    found = last(islice(iht(x, H, repeat((1 / lipschitz(H).item(), 2))), 2000))
    for i in range(len(x)):

        def error(columns, i=i):
            A = H[:, list(columns)]
            return (x[i] - A @ torch.linalg.lstsq(A, x[i]).solution).norm()

        best = min(combinations(range(12), 2), key=error)
        assert found[i].nonzero()[:, 0].tolist() == list(best)
    torch.testing.assert_close(found, s, atol=1e-6, rtol=0)


def test_oracle_is_least_squares_on_the_support():
    x, s, H = problem()
    oracle = least_squares_on(s != 0, x, H)
    for i in range(3):
        columns = (s[i, :, 0] != 0).nonzero()[:, 0]
        expected, *_ = np.linalg.lstsq(H[:, columns].numpy(), x[i].numpy(), rcond=None)
        np.testing.assert_allclose(oracle[i, columns].numpy(), expected, atol=1e-10)
    assert ((oracle != 0) == (s != 0)).all()


@pytest.mark.parametrize("algorithm", [ista, fista])
def test_an_operator_gives_what_its_matrix_gives(algorithm):
    psi = dct_basis(8)
    H = Chain(Mask(torch.arange(0, 64, 2), 64), Separable(psi, psi))
    x = torch.randn(2, 32, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dense = H.dense(dtype=torch.float64)
    theta = (0.9, 0.05)
    for a, b in zip(algorithm(x, H, repeat(theta, 5)), algorithm(x, dense, repeat(theta, 5)),
                    strict=True):  # fmt: skip
        torch.testing.assert_close(estimate(a), estimate(b))
    torch.testing.assert_close(lipschitz(H), lipschitz(dense), rtol=1e-6, atol=0)
    a = last(admm(x, H, repeat((0.5, 1.0, 0.05), 5)))
    b = last(admm(x, dense, repeat((0.5, 1.0, 0.05), 5)))
    torch.testing.assert_close(a.v, b.v)


CALLS = {
    "ista": (ista, (0.1, 0.05)),
    "fista": (fista, (0.1, 0.05)),
    "admm": (admm, (0.5, 1.0, 0.05)),
    "iht": (iht, (0.1, 4)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_batch_of_one_is_a_slice_and_inputs_are_left_alone(name):
    algorithm, theta = CALLS[name]
    x, _, H = problem()
    kept = x.clone(), H.clone()
    whole = estimate(last(algorithm(x, H, repeat(theta, 20))))
    one = estimate(last(algorithm(x[1], H, repeat(theta, 20))))
    torch.testing.assert_close(whole[1], one, atol=1e-12, rtol=0)
    assert torch.equal(x, kept[0]) and torch.equal(H, kept[1])
    single = estimate(last(algorithm(x.float(), H.float(), repeat(theta, 20))))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, whole.float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CALLS)
def test_bad_input_is_refused_before_computing(name):
    algorithm, theta = CALLS[name]
    x, _, H = problem()
    thetas = repeat(theta)
    for bad in (x[:, :-1], x[..., 0], x.mT):
        with pytest.raises(ValueError, match="x: got shape"):
            algorithm(bad, H, thetas)
    for bad in (math.nan, math.inf):
        broken = x.clone()
        broken[1, 2] = bad
        with pytest.raises(ValueError, match="x: got NaN or Inf"):
            algorithm(broken, H, thetas)
    with pytest.raises(TypeError, match="H: got torch.float64, expected the dtype of x"):
        algorithm(x.float(), H, thetas)
    with pytest.raises(TypeError, match="x: got torch.int64"):
        algorithm(x.long(), H, thetas)
    with pytest.raises(TypeError, match="x: got ndarray"):
        algorithm(x.numpy(), H, thetas)
    with pytest.raises(ValueError, match="H: got shape"):
        algorithm(x, H[0], thetas)
    with pytest.raises(ValueError, match="H: got device meta, expected the device of x, cpu"):
        algorithm(x, H.to("meta"), thetas)
    with pytest.raises(ValueError, match="start: got shape"):
        algorithm(x, H, thetas, start=x)


@pytest.mark.parametrize(("algorithm", "theta", "name"), [
    (ista, (0.0, 0.1), "mu"), (fista, (-1.0, 0.1), "mu"), (ista, (float("nan"), 0.1), "mu"),
    (ista, (torch.tensor(-1.0), 0.1), "mu"), (admm, (0.0, 1.0, 0.1), "lam"),
    (iht, (-0.1, 3), "mu"), (iht, (0.1, 81), "sparsity"), (iht, (0.1, 0), "sparsity"),
])  # fmt: skip
def test_impossible_parameters_are_refused(algorithm, theta, name):
    x, _, H = problem()
    with pytest.raises(ValueError, match=f"{name}: got"):
        last(algorithm(x, H, repeat(theta, 1)))


def test_problem_laws():
    g = torch.Generator().manual_seed(0)
    free, rows = gaussian_matrix(30, 50, g), gaussian_matrix(30, 50, g, rows="orthonormal")
    torch.testing.assert_close(free.norm(dim=0), torch.ones(50).double())
    torch.testing.assert_close(rows @ rows.mT, torch.eye(30).double(), atol=1e-12, rtol=0)
    assert abs(lipschitz(rows) - 1) < 1e-12
    s = sparse_signals(2000, 50, g, sparsity=5, std=0.5)
    assert ((s != 0).sum((-2, -1)) == 5).all()
    assert abs(s[s != 0].std() - 0.5) < 0.02
    assert abs((sparse_signals(2000, 50, g, density=0.1) != 0).double().mean() - 0.1) < 0.01
    noise = torch.randn(2000, 30, 1, generator=g, dtype=torch.float64)
    w = observed(s, free, noise, 13.0) - free @ s
    snr_db = 10 * math.log10((free @ s).square().sum() / w.square().sum())
    assert abs(snr_db - 13) < 0.1
    torch.testing.assert_close(observed(s, free, noise), free @ s)


def test_more_non_zeros_keep_those_already_there():
    def draw(k):
        return sparse_signals(20, 50, torch.Generator().manual_seed(5), sparsity=k)

    few, many = draw(3), draw(8)
    assert torch.equal(few[few != 0], many[few != 0])


@pytest.mark.parametrize("bad", [
    {"sparsity": 51}, {"sparsity": 0}, {"density": 0.0}, {"density": 1.5}, {},
    {"sparsity": 3, "density": 0.1},
])  # fmt: skip
def test_impossible_signals_are_refused(bad):
    with pytest.raises(ValueError, match="sparsity|density"):
        sparse_signals(2, 50, torch.Generator(), **bad)


def test_other_bad_arguments():
    x, _, H = problem()
    with pytest.raises(ValueError, match="rows: got 'x'"):
        gaussian_matrix(2, 3, torch.Generator(), rows="x")
    with pytest.raises(ValueError, match="rho: got -1"):
        coordinate_descent(x, H, -1.0, [0])
    with pytest.raises(TypeError, match="H: got Mask"):
        coordinate_descent(x, Mask(torch.arange(40), 80), 0.1, [0])


def test_until_stops_ista_when_it_has_converged():
    x, _, H = problem()
    mu = 1 / lipschitz(H).item()
    states = list(until(ista(x, H, repeat((mu, 0.1))), lambda a, b: (b - a).norm() < 1e-9))
    assert 100 < len(states) < 20_000
    assert kkt_residual(states[-1], x, H, 0.1).max() < 1e-8


# ---- the unrolled family ----


def test_greedy_descent_arrives_where_coordinate_descent_does():
    g = torch.Generator().manual_seed(5)
    H = gaussian_matrix(30, 60, g)
    s = sparse_signals(4, 60, g, sparsity=4)
    x = observed(s, H, torch.randn(4, 30, 1, generator=g, dtype=torch.float64), 20)
    greedy = last(islice(greedy_descent(x, H, repeat(0.05)), 4000))
    cyclic = last(islice(coordinate_descent(x, H, 0.05, cycle(range(60))), 6000))[0]
    torch.testing.assert_close(greedy.s, cyclic, atol=1e-8, rtol=0)
    assert kkt_residual(greedy.s, x, H, 0.05).max() < 1e-8


def test_greedy_descent_moves_one_coordinate_of_each_signal():
    g = torch.Generator().manual_seed(6)
    H = gaussian_matrix(20, 40, g)
    x = H @ sparse_signals(5, 40, g, sparsity=3)
    states = list(islice(greedy_descent(x, H, repeat(0.05)), 8))
    for a, b in zip(states, states[1:], strict=False):
        assert ((a.s != b.s).sum((-2, -1)) == 1).all()
        expected = H.mT @ x + b.s - H.mT @ (H @ b.s)
        torch.testing.assert_close(b.b, expected, atol=1e-12, rtol=0)
    alone = list(islice(greedy_descent(x[2], H, repeat(0.05)), 8))[-1]
    torch.testing.assert_close(alone.s, states[-1].s[2], atol=1e-12, rtol=0)


@pytest.mark.parametrize("H", [torch.ones(3, 5, dtype=torch.float64), Mask([0, 2], 5)])
def test_greedy_descent_refuses_a_matrix_without_unit_columns(H):
    x = torch.zeros(H.shape[0], 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="H: .*expected a matrix of unit columns"):
        greedy_descent(x, H, repeat(0.1))


def test_analytic_weights_have_the_least_energy():
    H = gaussian_matrix(8, 14, torch.Generator().manual_seed(7))
    B = analytic_weights(H)
    for j in (0, 5):
        b = cvxpy.Variable(8)
        cost = cvxpy.sum_squares(H.numpy().T @ b)
        cvxpy.Problem(cvxpy.Minimize(cost), [H[:, j].numpy() @ b == 1]).solve()
        torch.testing.assert_close(B[:, j], torch.as_tensor(b.value), atol=1e-5, rtol=0)
    assert (B.mT @ H).square().sum() < (H.mT @ H).square().sum()
    assert coherence(H) == (H.mT @ H).fill_diagonal_(0).abs().max()


def test_support_schedule_grows_to_its_most():
    counts = support_schedule(500, 16)
    assert counts[:3] == [6, 12, 18] and counts == sorted(counts) and counts[-1] == 65
    with pytest.raises(ValueError, match="kept: got 3 counts, expected one for each of 5"):
        LISTA_CP(torch.eye(4), (0.5, 0.1), 5, kept=[1, 1, 1])


def test_alista_learns_two_numbers_a_layer_and_carries_its_matrix():
    H = gaussian_matrix(10, 20, torch.Generator().manual_seed(8), dtype=torch.float32)
    fixed, free = ALISTA(H, (1.0, 0.1), 3), ALISTA(H, (1.0, 0.1), 3, learned=True)
    assert (parameters(fixed), parameters(free)) == (6, 206)
    assert any(v.shape == H.shape and not torch.equal(v, H) for v in fixed.state_dict().values())
    assert fixed.double()(torch.zeros(10, 1).double()).dtype == torch.float64


def test_counts_arrive_as_they_are_and_are_not_learned():
    thetas = Thetas((0.5, Fixed(3)), 2)
    assert parameters(thetas) == 2 and [theta[1] for theta in thetas] == [3, 3]
    twin = Thetas((0.1, Fixed(3)), 2)
    twin.load_state_dict(thetas.state_dict())
    assert torch.equal(twin.schedule(0), thetas.schedule(0))


@pytest.mark.parametrize("part", [1e-4, 0.05, 0.2, 0.5, 0.9])
def test_transition_against_scipy(part):
    """The minimum over τ of ρ(1 + τ²) + (1 − ρ) E max(|g| − τ, 0)², the mean by quadrature."""
    from scipy.integrate import quad
    from scipy.optimize import minimize_scalar
    from scipy.stats import norm

    def objective(tau):
        over = quad(lambda u: (u - tau) ** 2 * 2 * norm.pdf(u), tau, 40)[0]
        return part * (1 + tau**2) + (1 - part) * over

    found = minimize_scalar(objective, bounds=(0, 10), method="bounded", options={"xatol": 1e-9})
    assert transition(part) == pytest.approx(found.fun, rel=1e-6)


def test_transition_at_its_ends():
    assert transition(0) == pytest.approx(0, abs=1e-9) and transition(1) == 1
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="part: got"):
            transition(bad)
