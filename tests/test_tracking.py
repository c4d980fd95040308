"""Tracking: against the joint Gaussian, statsmodels, filterpy, scipy, and by laws."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from mbdl_course import datasets, tracking
from mbdl_course.fold import repeat
from mbdl_course.learn import Stage, seeded, training
from mbdl_course.tracking import (
    Belief,
    Covariance,
    Filter,
    Gain,
    LearnedNoise,
    Model,
    canonical,
    constant_acceleration,
    constant_velocity,
    diverged,
    extended,
    filtered,
    fitting,
    history,
    linearised,
    log_likelihood,
    lorenz,
    mse_db,
    nees,
    nis,
    particle_filter,
    pendulum,
    riccati,
    rotation,
    simulated,
    steady,
    systematic,
    unscented,
    white,
)
from mbdl_course.tracking.parts import Known, Linearising

D = torch.float64


def spd(size, g):
    A = torch.randn(size, size, generator=g, dtype=D)
    return A @ A.mT + 0.1 * torch.eye(size, dtype=D)


def random_model(m=3, n=2, seed=0):
    g = seeded(seed)
    F = torch.randn(m, m, generator=g, dtype=D) / m**0.5 * 0.8
    return Model(F, torch.randn(n, m, generator=g, dtype=D), spd(m, g), spd(n, g))


def known(m, Sigma=0.0):
    return Belief(torch.zeros(m, 1, dtype=D), Sigma * torch.eye(m, dtype=D))


def draw(model, horizon=12, count=4, seed=1, start=None):
    start = start or known(len(model.Q), 1.0)
    return *simulated(model, start, white(horizon, count, model, seeded(seed))), start


def joint(model, start, T):
    """Mean and covariance of (s_1, ..., s_T), and the matrix and covariance that make x of it."""
    F, H, Q, R = model
    m = len(Q)
    means, blocks = [], torch.zeros(T * m, T * m, dtype=D)
    mean, P, P_rows = start.s, start.Sigma, []
    for _ in range(T):
        mean, P = F @ mean, F @ P @ F.mT + Q
        means.append(mean)
        P_rows.append(P)
    for i in range(T):
        block = P_rows[i]
        for j in range(i, T):
            blocks[j * m : (j + 1) * m, i * m : (i + 1) * m] = block
            blocks[i * m : (i + 1) * m, j * m : (j + 1) * m] = block.mT
            block = F @ block
    eye = torch.eye(T, dtype=D)
    return torch.cat(means), blocks, torch.kron(eye, H), torch.kron(eye, R)


def posterior(model, start, xs, T):
    """The mean and covariance of s_1, ..., s_T given xs (seen, n, 1), by one linear solve."""
    mean, P, H, R = joint(model, start, T)
    n = len(xs) * len(model.R)
    x, H, R = xs.reshape(n, 1), H[:n], R[:n, :n]
    seen = ~x[:, 0].isnan()
    x, H, R = x[seen], H[seen], R[seen][:, seen]
    K = torch.linalg.solve(H @ P @ H.mT + R, H @ P).mT
    return mean + K @ (x - H @ mean), P - K @ H @ P


def evidence(model, start, xs):
    mean, P, H, R = joint(model, start, len(xs))
    x, seen = xs.reshape(-1, 1), ~xs.reshape(-1).isnan()
    S = (H @ P @ H.mT + R)[seen][:, seen]
    return torch.distributions.MultivariateNormal((H @ mean)[seen, 0], S).log_prob(x[seen, 0])


# singular Q from a known state; a random model; five states; and its own covariance of the start
MODELS = {
    "velocity": (constant_velocity(0.1, 0.25, 4.0), known(2)),
    "random": (random_model(), known(3, 1.0)),
    "canonical 5": (canonical(5, 0.01, 1.0), known(5)),
    "acceleration": (constant_acceleration(0.1, 1.0, 1.0), Belief(
        torch.ones(3, 1, dtype=D), spd(3, seeded(9)))),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_kalman_filter_is_the_joint_gaussian_posterior(name):
    model, start = MODELS[name]
    x, _, _ = draw(model, horizon=8, count=2, start=start)
    beliefs = list(filtered(x, model, riccati(model), start))
    assert len(beliefs) == 9 and beliefs[0] is start
    for i in range(2):
        for t in range(1, 9):
            s, P = posterior(model, start, x[:t, i], t)
            m = len(model.Q)
            scale = s.abs().max().clamp(min=1)
            assert (beliefs[t].s[i] - s[-m:]).abs().max() < 1e-9 * scale
            assert (beliefs[t].Sigma - P[-m:, -m:]).abs().max() < 1e-9 * P.abs().max()
        ours = log_likelihood(history(beliefs))[i]
        torch.testing.assert_close(ours, evidence(model, start, x[:, i]), atol=1e-8, rtol=1e-9)


def test_missing_observations_are_left_out_exactly():
    model, start = MODELS["random"]
    x, _, _ = draw(model, horizon=7, count=3, start=start)
    x[2, 0] = torch.nan  # one trajectory, all entries
    x[4, 1, 0] = torch.nan  # one entry
    x[5] = torch.nan  # everybody
    for gain in (riccati, extended, unscented):
        beliefs = list(filtered(x, model, gain(model), start, missing=True))
        for i in range(3):
            s, P = posterior(model, start, x[:, i], 7)
            torch.testing.assert_close(beliefs[-1].s[i], s[-3:], atol=1e-9, rtol=0)
            torch.testing.assert_close(beliefs[-1].Sigma[i], P[-3:, -3:], atol=1e-9, rtol=0)
            ours = log_likelihood(history(beliefs))[i]
            torch.testing.assert_close(ours, evidence(model, start, x[:, i]), atol=1e-8, rtol=0)


def test_missing_allowed_but_none_missing_is_the_plain_filter():
    model, start = MODELS["random"]
    x, _, _ = draw(model, start=start)
    plain = filtered(x, model, riccati(model), start)
    for a, b in zip(plain, filtered(x, model, riccati(model), start, missing=True), strict=True):
        assert torch.equal(a.s, b.s) and b.Sigma.shape == (3, 3)


@pytest.mark.parametrize("rule", [extended, unscented])
@pytest.mark.parametrize("as_function", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_extended_and_unscented_are_kalman_on_a_linear_model(rule, as_function, name):
    model, start = MODELS[name]
    x, _, _ = draw(model, start=start)
    other = model
    if as_function:
        other = model._replace(F=lambda s: model.F @ s, H=lambda s: model.H @ s)
    ours = filtered(x, other, rule(other), start)
    for a, b in zip(ours, filtered(x, model, riccati(model), start), strict=True):
        scale = b.s.abs().max().clamp(min=1)
        assert (a.s - b.s).abs().max() < 1e-9 * scale
        assert (a.Sigma - b.Sigma).abs().max() < 1e-9 * b.Sigma.abs().max().clamp(min=1)


@pytest.mark.parametrize("name", ["random", "canonical 5", "velocity", "acceleration"])
def test_steady_gain_is_scipys_riccati_and_the_filters_limit(name):
    model, start = MODELS[name]
    F, H, Q, R = (part.numpy() for part in model)
    P = scipy.linalg.solve_discrete_are(F.T, H.T, Q, R)
    K = P @ H.T @ np.linalg.inv(H @ P @ H.T + R)
    x, _, _ = draw(model, horizon=800, count=1, start=start)
    last = list(filtered(x, model, steady(model), start))[-1]
    torch.testing.assert_close(last.gain.K, torch.tensor(K), atol=1e-8, rtol=0)
    kalman = list(filtered(x, model, riccati(model), start))[-1]
    torch.testing.assert_close(last.gain.K, kalman.gain.K, atol=1e-8, rtol=0)
    torch.testing.assert_close(last.Sigma, kalman.Sigma, atol=1e-7, rtol=1e-7)


def test_filterpy_agrees():
    KalmanFilter = pytest.importorskip("filterpy.kalman").KalmanFilter
    model, start = MODELS["random"]
    x, _, _ = draw(model, horizon=50, count=1, start=start)
    theirs = KalmanFilter(dim_x=3, dim_z=2)
    theirs.x, theirs.P = start.s.numpy(), start.Sigma.numpy()
    theirs.F, theirs.H, theirs.Q, theirs.R = (part.numpy() for part in model)
    for belief, z in zip(list(filtered(x, model, riccati(model), start))[1:], x[:, 0], strict=True):
        theirs.predict()
        theirs.update(z.numpy())
        np.testing.assert_allclose(belief.s[0].numpy(), theirs.x, atol=1e-8)
        np.testing.assert_allclose(belief.Sigma.numpy(), theirs.P, atol=1e-8)


def test_statsmodels_agrees():
    MLEModel = pytest.importorskip("statsmodels.tsa.statespace.mlemodel").MLEModel
    model, start = MODELS["random"]
    x, _, _ = draw(model, horizon=60, count=1, start=start)
    x[10, 0, 0] = x[20] = torch.nan
    theirs = MLEModel(
        x[:, 0, :, 0].numpy(),
        k_states=3,
        initialization="known",
        initial_state=(model.F @ start.s)[:, 0].numpy(),
        initial_state_cov=(model.F @ start.Sigma @ model.F.mT + model.Q).numpy(),
    )
    for name, part in zip(("transition", "design", "state_cov", "obs_cov"), model, strict=True):
        theirs[name] = part.numpy()
    theirs["selection"] = np.eye(3)
    found = theirs.ssm.smooth()
    ours = history(filtered(x, model, riccati(model), start, missing=True))
    np.testing.assert_allclose(ours.s[:, 0, :, 0].numpy(), found.filtered_state.T, atol=1e-8)
    assert abs(log_likelihood(ours).item() - found.llf) < 1e-8


# ---- Statistics --------------------------------------------------------------------------------


def test_constant_velocity_reaches_the_variance_it_claims():
    """The case of the textbook notebook: q = .5, noise of standard deviation 2, known start."""
    model, start = constant_velocity(0.1, 0.25, 4.0), known(2)
    x, s, _ = draw(model, horizon=200, count=5000, seed=3, start=start)
    beliefs = history(filtered(x, model, riccati(model), start))
    mse = (beliefs.s - s)[..., 0, 0].square().mean(0)
    error = mse.std() / 5000**0.5
    claim = beliefs.Sigma[:, 0, 0, 0].mean()
    assert abs(mse.mean() - claim) < 3 * error and error < 0.002
    assert abs(claim - 0.233) < 0.002


def test_claims_are_calibrated_and_a_wrong_model_is_seen():
    model, start = MODELS["random"]
    x, s, _ = draw(model, horizon=50, count=400, start=start)
    right = history(filtered(x, model, riccati(model), start))
    assert abs(nees(right.s, right.Sigma, s).mean() - 3) < 0.1
    assert abs(nis(right).mean() - 2) < 0.1 and not diverged(right).any()
    timid = model._replace(R=100 * model.R, Q=100 * model.Q)
    assert nis(history(filtered(x, timid, riccati(timid), start))).mean() < 0.1
    bold = model._replace(R=model.R / 100, Q=model.Q / 100)
    assert diverged(history(filtered(x, bold, riccati(bold), start))).all()


def test_published_setting_of_the_linear_canonical_model():
    """KF at r² = 1, q² = 0.01, T = 100: -7.49 dB on the published test set of 200 trajectories."""
    model, start = canonical(2, 0.01, 1.0), known(2)
    x, s, _ = draw(model, horizon=100, count=2000, seed=5, start=start)
    assert abs(mse_db(history(filtered(x, model, riccati(model), start)).s, s) + 7.4) < 0.25
    turned = model._replace(H=model.H @ rotation(10))
    assert mse_db(history(filtered(x, turned, riccati(turned), start)).s, s) > 0


def test_particle_filter_comes_to_the_kalman_filter_as_one_over_root_n():
    model, start = constant_velocity(0.5, 1.0, 1.0), known(2, 1.0)
    x, _, _ = draw(model, horizon=15, count=200, start=start)
    exact = history(filtered(x, model, riccati(model), start))
    error, counts = [], (25, 100, 400, 1600)
    for count in counts:
        *clouds, last = particle_filter(x, model, count, start, seeded(4))
        error.append((last.s - exact.s[-1]).square().mean().sqrt().log2().item())
    slope = (error[-1] - error[0]) / (math.log2(counts[-1] / counts[0]))
    assert -0.6 < slope < -0.4, error
    assert abs(last.Sigma[:, 0, 0].mean() / exact.Sigma[-1, 0, 0, 0] - 1) < 0.02
    again = [*particle_filter(x, model, 25, start, seeded(4))][-1].s
    assert torch.equal(again, [*particle_filter(x, model, 25, start, seeded(4))][-1].s)


def test_systematic_resampling_takes_each_its_share():
    w = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 0.0, 1.0]], dtype=D)
    for u in (0.01, 0.5, 0.99):
        index = systematic(w, torch.full((2, 1), u, dtype=D))
        assert index.tolist() == [[0, 0, 1, 2], [3, 3, 3, 3]]


@pytest.mark.parametrize("rule", [extended, unscented])
def test_nonlinear_filters_track_a_pendulum(rule):
    model = pendulum(0.1, 0.05, 0.01)
    start = Belief(torch.tensor([[1.0], [0.0]], dtype=D), 0.1 * torch.eye(2, dtype=D))
    x, s, _ = draw(model, horizon=80, count=50, start=start)
    beliefs = history(filtered(x, model, rule(model), start))
    assert mse_db(beliefs.s, s) < -16
    assert 1.5 < nees(beliefs.s, beliefs.Sigma, s).mean() < 3.0


# ---- Models ------------------------------------------------------------------------------------


def test_models_as_published():
    F, H, Q, R = constant_velocity(0.1, 2.0, 4.0)
    assert F.tolist() == [[1, 0.1], [0, 1]] and H.tolist() == [[1, 0]] and R.tolist() == [[4.0]]
    torch.testing.assert_close(Q, 2 * torch.tensor([[2.5e-5, 5e-4], [5e-4, 0.01]], dtype=D))
    F, H, Q, _ = constant_acceleration(0.1, 1.0, 1.0)
    torch.testing.assert_close(F, torch.tensor([[1, 0.1, 0.005], [0, 1, 0.1], [0, 0, 1]], dtype=D))
    assert torch.linalg.eigvalsh(Q).min() > 0 and H.tolist() == [[1, 0, 0]]
    F, H, _, _ = canonical(5, 1.0, 1.0)
    assert F[0].tolist() == [1] * 5 and torch.equal(F[1:], torch.eye(5, dtype=D)[1:])
    assert H[0].tolist() == [1] * 5 and H[1].tolist() == [0, 0, 0, 1, 0]
    assert torch.equal(canonical(2, 1.0, 1.0).H, torch.eye(2, dtype=D))


@pytest.mark.parametrize("size", [2, 3])
def test_rotations_are_orthogonal(size):
    U = rotation(10, size)
    torch.testing.assert_close(U @ U.mT, torch.eye(size, dtype=D))
    assert torch.equal(rotation(0, size), torch.eye(size, dtype=D))


def test_the_error_of_one_lorenz_step_is_the_integrators():
    """At dt = 0.02 from [1, 1, 1]: -17 dB for the Taylor models of order 5 and 2, RK4 < -60 dB."""
    fine = lorenz(0.02, 0.0, 0.0, substeps=10).F
    s = [torch.ones(3, 1, dtype=D)]
    for _ in range(1500):
        s.append(fine(s[-1]))
    s = torch.stack(s)
    found = {}
    for name, model in {"5": lorenz(0.02, 0, 0, order=5), "2": lorenz(0.02, 0, 0, order=2),
                        "rk4": lorenz(0.02, 0, 0, substeps=4)}.items():  # fmt: skip
        found[name] = mse_db(model.F(s[:-1]), s[1:])
    assert abs(found["5"] + 17.4) < 0.5 and abs(found["2"] + 17.3) < 0.5, found
    assert found["rk4"] < -60


def test_starts_on_the_attractor_are_independent():
    s = tracking.attractor(500, seeded(2))
    assert s.shape == (500, 3, 1) and abs(s[:, 0].mean()) < 1.5 and 20 < s[:, 2].mean() < 27
    assert torch.cdist(s[:, :, 0], s[:, :, 0]).fill_diagonal_(9).min() > 1e-4


def test_decimation_of_a_fine_simulation_is_the_coarse_model():
    fine, coarse = lorenz(0.005, 0.0, 1.0), lorenz(0.02, 0.0, 1.0, substeps=4)
    start = Belief(tracking.attractor(3, seeded(1)), torch.zeros(3, 3, dtype=D))
    _, s = simulated(fine, start, white(40, 3, fine, seeded(2)))
    _, t = simulated(coarse, start, white(10, 3, coarse, seeded(2)))
    torch.testing.assert_close(s[3::4], t)


@pytest.mark.parametrize("model", [pendulum(0.1, 1.0, 1.0), lorenz(0.02, 1.0, 1.0, order=2)])
def test_jacobians_are_the_derivatives(model):
    m = len(model.Q)
    s = torch.randn(4, 2, m, 1, generator=seeded(3), dtype=D)
    value, J = linearised(model.F, s)
    torch.testing.assert_close(value, model.F(s))
    assert J.shape == (4, 2, m, m)
    reverse = torch.autograd.functional.jacobian(model.F, s[1, 0])[:, 0, :, 0]
    torch.testing.assert_close(J[1, 0], reverse)
    assert not value.requires_grad and not J.requires_grad
    value, J = linearised(model.H if callable(model.H) else model.F, s.requires_grad_())
    assert J.requires_grad and J.shape == (4, 2, value.shape[-2], m)


def test_a_batch_of_models_is_each_model():
    model, start = constant_velocity(0.1, 0.25, 4.0), known(2, 1.0)
    x, _, _ = draw(model, start=start)
    Q = torch.stack([spd(2, seeded(k)) for k in range(3)])[:, None]
    many = model._replace(Q=Q)
    both = history(filtered(x[:, None], many, riccati(many), start))
    for k in range(3):
        single = model._replace(Q=Q[k, 0])
        one = history(filtered(x, single, riccati(single), start))
        torch.testing.assert_close(both.s[:, k], one.s, atol=1e-12, rtol=0)
        torch.testing.assert_close(log_likelihood(both)[k], log_likelihood(one))
    assert LearnedNoise(many, start)(x[:, None]).s.shape == (12, 3, 4, 2, 1)


def test_extended_filter_is_differentiable_through_its_jacobian():
    start = Belief(torch.ones(3, 1, dtype=D), torch.eye(3, dtype=D))
    model = lorenz(0.02, 0.1, 1.0)
    x, _, _ = draw(model, horizon=4, count=2, start=start)

    def loss(shift):
        s = start._replace(s=start.s + shift)
        return history(filtered(x, model, extended(model), s)).s.square().sum()

    assert torch.autograd.gradcheck(loss, torch.zeros(3, 1, dtype=D, requires_grad=True))


def test_noise_scales_and_is_reproducible():
    model, start = constant_velocity(0.1, 1.0, 1.0), known(2)
    noise = white(5, 3, model, seeded(0))
    x, s = simulated(model, start, noise)
    louder, same = simulated(model._replace(R=4 * model.R), start, noise)
    torch.testing.assert_close(same, s)
    torch.testing.assert_close(louder - s[..., :1, :], 2 * (x - s[..., :1, :]))
    assert torch.equal(x, simulated(model, start, white(5, 3, model, seeded(0)))[0])


# ---- Laws --------------------------------------------------------------------------------------


def test_batches_are_slices_and_inputs_stay():
    model, start = MODELS["random"]
    x, _, _ = draw(model, count=6, start=start)
    copies = [t.clone() for t in (x, *model, *start[:2])]
    for rule in (riccati, unscented):
        both = history(filtered(x.unflatten(1, (2, 3)), model, rule(model), start)).s
        one = history(filtered(x[:, 4], model, rule(model), start)).s
        torch.testing.assert_close(both[:, 1, 1], one, atol=1e-12, rtol=0)
    for a, b in zip(copies, (x, *model, *start[:2]), strict=True):
        assert torch.equal(a, b)


def test_the_covariance_is_not_repeated():
    model, start = MODELS["random"]
    x, _, _ = draw(model, count=7, start=start)
    *_, last = filtered(x, model, riccati(model), start)
    assert last.Sigma.shape == (3, 3) and last.gain.K.shape == (3, 2) and last.s.shape == (7, 3, 1)


def matrix(*rows):
    return torch.tensor(rows, dtype=D)


def still(H, Q=0.0, F=None):
    eye = torch.eye(H.shape[-1], dtype=D)
    return Model(eye if F is None else F, H, Q * eye, torch.eye(len(H), dtype=D))


FIVE, PAIR = matrix([0.3, -1.2, 0.7, 0.4, 1.1]), torch.eye(2, dtype=D)
ALIKE, TURNED = matrix([1.0, 1 - 1e-12], [1 - 1e-12, 1.0]), matrix([0.9, 0.1], [0.0, 0.9])
# where doubling is exact; and where it cancels, overflows or meets a singular matrix
AHEAD = {name: (model, 1.0) for name, (model, _) in MODELS.items()} | {
    "vague": (MODELS["velocity"][0], 100.0),
    "nothing known": (still(matrix([1.0]), 2.0), 1e7),
}
BEHIND = {
    "five constants": (still(FIVE), 1e7),
    "five walks": (still(FIVE, 0.01), 1e6),
    "grows": (still(PAIR[:1], F=matrix([1.5, 0.1], [0.1, 0.9])), 1.0),
    "overflows": (still(matrix([1.0]), F=matrix([2.0])), 1.0),
    "sensors nearly alike": (still(PAIR, 1.0, TURNED)._replace(R=ALIKE), 1.0),
    "R singular": (still(PAIR, 1.0)._replace(R=0 * PAIR), 1.0),
}


@pytest.mark.parametrize("name", [*AHEAD, *BEHIND])
def test_covariances_ahead_of_the_data_are_those_of_the_steps(name):
    """By doubling where that is confirmed, in one block or in blocks of 5, else step by step."""
    model, vague = (AHEAD | BEHIND)[name]
    horizon = 1100 if name == "overflows" else 101
    start = known(len(model.Q), vague)
    x = torch.randn(horizon, 4, len(model.R), 1, dtype=D, generator=seeded(3))
    steps = history(filtered(x, model, extended(model), start))
    gain = riccati(model)
    assert isinstance(next(gain.ahead(start, horizon)), Known) == (name in AHEAD)
    blocks = gain.ahead(start, horizon, most=5)
    for rule in (gain, lambda *_: next(blocks)(*_)):
        ahead = history(filtered(x, model, rule, start))
        for a, b in zip((ahead.s, *ahead.gain[:-1]), (steps.s, *steps.gain[:-1]), strict=True):
            size = b.abs().amax((-2, -1), keepdim=True)
            assert a.shape == b.shape and ((a - b).abs() <= 1e-8 * size).all()


def test_what_is_learned_converted_or_a_batch_is_taken_step_by_step():
    model, start = MODELS["random"]
    gain, learned = riccati(model), LearnedNoise(model, start)
    two = Model(*(torch.stack([part, part])[:, None] for part in model))
    for rule, begin in (
        (riccati(two), start),
        (riccati(learned.model), start),
        (gain, start._replace(Sigma=start.Sigma.expand(2, 3, 3))),
        (Filter(model, gain).float().gain, known(3, 1.0)),
    ):
        assert isinstance(next(rule.ahead(begin, 4)), Linearising)
    assert isinstance(next(gain.ahead(start, 4)), Known)
    x, _, _ = draw(model, start=start)
    slopes = torch.func.jacrev(lambda x: [*filtered(x, model, gain, start)][-1].s)(x)
    assert slopes.shape == (4, 3, 1, *x.shape)


def test_float32_keeps_its_covariance():
    """A nearly exact sensor after a vague start: the short form Σ − KHΣ loses positivity here."""
    model = constant_acceleration(0.01, 1e-4, 1e-8, dtype=torch.float32)
    start = Belief(torch.zeros(3, 1), 1e4 * torch.eye(3))
    x, _ = simulated(model, start._replace(Sigma=torch.eye(3)), white(300, 3, model, seeded(2)))
    for belief in filtered(x, model, riccati(model), start):
        assert torch.linalg.eigvalsh(belief.Sigma.double()).min() > -1e-7 * belief.Sigma.max()
    assert belief.s.dtype == torch.float32


def test_any_gain_fills_the_slot():
    """The filling law: the Kalman filter's own gains, from outside, are the Kalman filter."""
    model, start = MODELS["random"]
    x, _, _ = draw(model, start=start)
    kalman = list(filtered(x, model, riccati(model), start))

    def replayed(belief, x, seen=None):  # memory: how many steps so far
        t = (belief.memory or 0) + 1
        s = model.F @ belief.s
        return Gain(kalman[t].gain.K, s, model.H @ s, memory=t)

    for a, b in zip(filtered(x, model, replayed, Belief(start.s)), kalman, strict=True):
        torch.testing.assert_close(a.s, b.s, atol=1e-12, rtol=0)
    assert history(filtered(x, model, replayed, Belief(start.s))).Sigma is None


def test_the_likelihood_has_the_gradient_of_the_joint_gaussian():
    model, start = MODELS["random"]
    x, _, _ = draw(model, horizon=6, count=1, start=start)
    parts = [part.clone().requires_grad_() for part in model]
    ours = log_likelihood(history(filtered(x, Model(*parts), riccati(Model(*parts)), start))).sum()
    theirs = evidence(Model(*parts), start, x[:, 0])
    for a, b in zip(torch.autograd.grad(ours, parts), torch.autograd.grad(theirs, parts),
                    strict=True):  # fmt: skip
        torch.testing.assert_close((a + a.mT if a.shape[0] == a.shape[1] else a),
                                   (b + b.mT if b.shape[0] == b.shape[1] else b),
                                   atol=1e-8, rtol=1e-8)  # fmt: skip


# ---- Learned noise -----------------------------------------------------------------------------


def test_a_learned_covariance_starts_where_told_and_stays_one():
    Sigma = spd(3, seeded(1))
    made = Covariance(Sigma)
    torch.testing.assert_close(made(), Sigma)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(5 * torch.randn(parameter.shape, generator=seeded(2), dtype=D))
    assert torch.linalg.eigvalsh(made()).min() >= 0
    with pytest.raises(ValueError, match="Sigma: .*not positive definite"):
        Covariance(torch.zeros(2, 2, dtype=D))


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_a_learned_covariance_stays_finite_whatever_a_line_search_tries(dtype):
    made = Covariance(torch.eye(2, dtype=dtype))
    for size in (-1e4, 1e4):
        with torch.no_grad():
            made.log_diagonal.fill_(size)
        Sigma = made()
        assert Sigma.isfinite().all() and (Sigma.diagonal() > 0).all()


def test_noise_is_learned_from_a_start_far_off():
    """A wrong F, little noise, a Q ten thousand times too large: L-BFGS once left all floats."""
    true, start = constant_velocity(0.1, 0.25, 0.01), known(2)
    x, s, _ = draw(true, horizon=100, count=5, seed=6, start=start)
    wrong = true._replace(F=true.F @ rotation(-2), Q=100 * torch.eye(2, dtype=D))
    module = LearnedNoise(wrong, start, learn=("Q",))
    first, *_, p = fitting(module, lambda: (module(x).s - s)[..., 0, 0].square().mean(), 30, 1e-6)
    assert p.loss <= first.loss and torch.linalg.eigvalsh(module.model.Q).min() >= 0


def test_untrained_learned_noise_is_the_kalman_filter():
    model, start = MODELS["random"]
    x, _, _ = draw(model, start=start)
    ours, kalman = LearnedNoise(model, start)(x), history(filtered(x, model, riccati(model), start))
    torch.testing.assert_close(ours.s, kalman.s, atol=1e-12, rtol=0)
    torch.testing.assert_close(ours.Sigma, kalman.Sigma, atol=1e-12, rtol=0)


def nile_likelihood(module, spread):
    """Given the first observation, whose level did not move before and has the variance spread."""
    x, one = datasets.nile()[:, None, None], torch.ones(1, 1, dtype=D)
    still = module.model._replace(Q=0 * one)
    *_, module.start = filtered(x[:1], still, riccati(still), Belief(0 * one, spread * one))
    return log_likelihood(module(x[1:]))


def nile(R, Q):
    one = torch.ones(1, 1, dtype=D)
    return LearnedNoise(Model(one, one, Q * one, R * one), None)


def test_the_nile_by_maximum_likelihood():
    """statsmodels' default fit, -632.538, stops 7e-5 below the maximum of its likelihood."""
    api = pytest.importorskip("statsmodels.api")
    theirs = api.tsa.UnobservedComponents(datasets.nile().numpy(), "llevel")
    default = theirs.fit(disp=0)
    R, Q = default.params
    assert abs(R - 15078.0) < 1 and abs(Q - 1478.8) < 1 and abs(default.llf + 632.538) < 1e-3
    assert abs(nile_likelihood(nile(R, Q), 1e6).item() - default.llf) < 1e-8
    module = nile(1e4, 1e3)
    *_, p = fitting(module, lambda: -nile_likelihood(module, 1e6), 60)
    tight = theirs.fit(disp=0, maxiter=500, pgtol=1e-10, factr=10.0)
    assert abs(-p.loss - tight.llf) < 1e-8 and -p.loss > default.llf
    assert abs(module.model.R.item() - tight.params[0]) < 1
    assert abs(module.model.Q.item() - tight.params[1]) < 1


def test_the_nile_with_nothing_known_before():
    """Durbin, Koopman 2012, "Time Series Analysis by State Space Methods", 2.9: 15099, 1469.1."""
    module = nile(1e4, 1e3)
    for _ in fitting(module, lambda: -nile_likelihood(module, 1e12), 60):
        pass
    assert abs(module.model.R.item() - 15099) < 1 and abs(module.model.Q.item() - 1469.1) < 0.2


def test_noise_is_learned_from_squared_errors_and_from_observations_alone():
    true, start = constant_velocity(0.1, 0.25, 4.0), known(2)
    x, s, _ = draw(true, horizon=100, count=20, seed=6, start=start)
    module = LearnedNoise(true._replace(Q=torch.eye(2, dtype=D)), start, learn=("Q",))

    def error(beliefs):
        return (beliefs.s - s)[..., 0, 0].square().mean()

    before = error(module(x)).item()
    optimum = error(history(filtered(x, true, riccati(true), start))).item()
    for loss in (lambda: error(module(x)), lambda: -log_likelihood(module(x)).mean()):
        for _ in fitting(module, loss, 30, tolerance=1e-6):
            pass
        assert error(module(x)) < 1.1 * optimum < 0.4 * before
        assert torch.linalg.eigvalsh(module.model.Q).min() >= 0


def test_noise_is_learned_by_the_courses_training():
    true, start = constant_velocity(0.1, 0.25, 4.0), known(2)
    x, s, _ = draw(true, horizon=30, count=20, seed=6, start=start)
    module = LearnedNoise(true._replace(Q=torch.eye(2, dtype=D)), start, learn=("Q",))

    def loss(beliefs, s):
        return (beliefs.s - s).square().mean()

    first, *_, p = training(module, repeat((x, s)), loss, [Stage(15, 0.2)])
    assert p.loss < 0.7 * first.loss


def test_fitting_stops_where_the_loss_is_not_a_number():
    module = Covariance(torch.eye(1, dtype=D))
    with pytest.raises(FloatingPointError, match="loss: got nan at step 0"):
        list(fitting(module, lambda: module().sum() * math.nan, 3))


# ---- Bad input ---------------------------------------------------------------------------------

X = torch.zeros(5, 2, 2, 1, dtype=D)
GOOD, START = random_model(), known(3, 1.0)
BAD = {
    "list": (X.tolist(), GOOD, START, TypeError, "xs: got list"),
    "whole numbers": (X.long(), GOOD, START, TypeError, "xs: got torch.int64"),
    "tuple": (X, tuple(GOOD), START, TypeError, "model: got tuple"),
    "time alone": (X[:, 0, :, 0], GOOD, START, ValueError, r"xs: got shape \(5, 2\)"),
    "n": (X[..., :1, :], GOOD, START, ValueError, r"xs: got shape .* expected \(T, ..., 2, 1\)"),
    "nothing": (X[:0], GOOD, START, ValueError, "T ≥ 1"),
    "NaN": (X + torch.nan, GOOD, START, ValueError, "say missing=True"),
    "Inf": (X + torch.inf, GOOD, START, ValueError, "xs: got NaN or Inf"),
    "F": (X, GOOD._replace(F=torch.eye(2, dtype=D)), START, ValueError, r"F: .*expected \(3, 3\)"),
    "H": (X, GOOD._replace(H=torch.eye(3, dtype=D)), START, ValueError, r"H: .*expected \(2, 3\)"),
    "Q negative": (X, GOOD._replace(Q=-GOOD.Q), START, ValueError, "Q: .*eigenvalue -"),
    "R skew": (X, GOOD._replace(R=torch.tensor([[1, 0.5], [0, 1]], dtype=D)), START, ValueError,
               "R: .*not symmetric"),
    "R vector": (X, GOOD._replace(R=torch.ones(2, dtype=D)), START, ValueError, "R: got shape"),
    "Q number": (X, GOOD._replace(Q=1.0), START, TypeError, "Q: got float"),
    "Q single": (X, GOOD._replace(Q=GOOD.Q.float()), START, TypeError, "got torch.float"),
    "F single": (X, GOOD._replace(F=GOOD.F.float()), START, TypeError, "F: got torch.float32"),
    "start": (X, GOOD, known(2, 1.0), ValueError, r"start.s: .*expected finite columns \(..., 3"),
    "Sigma": (X, GOOD, known(3, -1.0), ValueError, "start.Sigma: .*eigenvalue -1"),
    "no Sigma": (X, GOOD, Belief(START.s), ValueError, "start.Sigma: got None"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    xs, model, start, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        list(filtered(xs, model, riccati(GOOD), start))
    if message.startswith(("F:", "H:", "Q:", "R:", "model:")):
        for rule in (riccati, extended, unscented, steady):
            with pytest.raises(kind, match=message):
                rule(model)


def test_infinite_is_never_missing():
    with pytest.raises(ValueError, match="xs: got NaN or Inf"):
        filtered(X + torch.inf, GOOD, riccati(GOOD), START, missing=True)


def test_one_observation_is_enough_to_filter():
    x, _, start = draw(GOOD, horizon=1)
    assert history(filtered(x, GOOD, riccati(GOOD), start)).s.shape == (1, 4, 3, 1)
    with pytest.raises(ValueError, match="beliefs: got a start alone"):
        history([start])


def test_a_diverging_filter_is_told():
    model = GOOD._replace(F=1e3 * torch.eye(3, dtype=D))
    start = Belief(torch.full((3, 1), 1e295, dtype=D), torch.eye(3, dtype=D))

    def deaf(belief, x, seen=None):
        s = model.F @ belief.s
        return Gain(torch.zeros(3, 2, dtype=D), s, model.H @ s)

    with pytest.raises(FloatingPointError, match="diverged: its estimate after observation 5"):
        list(filtered(torch.zeros(20, 1, 2, 1, dtype=D), model, deaf, start))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: riccati(GOOD._replace(F=torch.sin)), "F: got a function"),
        (lambda: unscented(GOOD, kappa=-1), "kappa: got -1"),
        (lambda: steady(GOOD._replace(R=0 * GOOD.R)), "R: got a singular"),
        (lambda: steady(GOOD._replace(F=3 * torch.eye(3, dtype=D), H=0 * GOOD.H)), "steady gain"),
        (lambda: lorenz(0.02, 1, 1, order=0), "order: got 0"),
        (lambda: lorenz(0.02, 1, 1, substeps=0.5), "substeps: got 0.5"),
        (lambda: white(0, 1, GOOD, seeded(0)), "horizon: got 0"),
        (lambda: white(1, 2.0, GOOD, seeded(0)), "count: got 2.0"),
        (lambda: particle_filter(X, GOOD, 1, START, seeded(0)), "count: got 1"),
        (lambda: list(filtered(X + torch.nan, GOOD, steady(GOOD), START,
                               missing=True)), "missing entries"),
    ],
)  # fmt: skip
def test_other_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
