"""Training as a Kalman filter: ridge regression where the network is linear; the training law."""

import math
from itertools import accumulate, islice

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from mbdl_course.fold import last
from mbdl_course.kalman_training import (
    Belief,
    initial_belief,
    kalman_step,
    kalman_training,
    predicted,
)
from mbdl_course.learn import Progress, batches, seeded
from mbdl_course.networks import Columns

D = torch.float64
x = torch.randn(40, 3, 1, generator=seeded(1), dtype=D)
A = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.0, 2.0]], dtype=D)
s = A @ x + 1.0 + 0.1 * torch.randn(40, 2, 1, generator=seeded(2), dtype=D)


def linear(outputs=2, bias=False):
    layer = nn.Linear(3, outputs, bias=bias, dtype=D)
    nn.init.zeros_(layer.weight)
    return Columns(layer)


def small(seed=0, dtype=D):
    network = Columns(nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))).to(dtype)
    for p in network.parameters():
        nn.init.normal_(p, std=0.5, generator=seeded(seed))
    return network


def wave(seed=3, dtype=D):
    u = 4 * torch.rand(60, 1, 1, generator=seeded(seed), dtype=D) - 2
    return u.to(dtype), ((2 * u).sin() + 0.05 * torch.randn(60, 1, 1, generator=seeded(4))).to(
        dtype
    )


@pytest.mark.parametrize("size", [1, 5, 40])
def test_for_a_linear_network_it_is_ridge_regression(size):
    """Q = 0: min Σ‖s − Wx‖²/R + ‖W‖²/Σ₀, whatever the size of the batches; scikit-learn agrees."""
    model, R, Sigma = linear(), 0.3, 2.0
    pairs = zip(x.split(size), s.split(size), strict=True)
    w = last(accumulate(pairs, kalman_step(model, R), initial=initial_belief(model, Sigma))).w
    oracle = Ridge(alpha=R / Sigma, fit_intercept=False).fit(x[..., 0].numpy(), s[..., 0].numpy())
    torch.testing.assert_close(w.view(2, 3), torch.from_numpy(oracle.coef_), atol=1e-10, rtol=0)


def test_its_covariance_is_the_posterior_and_a_correlated_noise_is_told():
    """Σ = (I/Σ₀ + Σ_k J_kᵀR⁻¹J_k)⁻¹ with J_k = I₂ ⊗ x_kᵀ, and w its generalised least squares."""
    model, Sigma = linear(), 2.0
    R = torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=D)
    pairs = zip(x.split(4), s.split(4), strict=True)
    belief = last(accumulate(pairs, kalman_step(model, R), initial=initial_belief(model, Sigma)))
    J = torch.stack([torch.kron(torch.eye(2, dtype=D), row.mT.contiguous()) for row in x])
    information = torch.eye(6, dtype=D) / Sigma + (J.mT @ torch.linalg.solve(R, J)).sum(0)
    expected = torch.linalg.solve(information, (J.mT @ torch.linalg.solve(R, s)).sum(0))
    torch.testing.assert_close(belief.w, expected, atol=1e-10, rtol=0)
    inverse = torch.linalg.solve(information, torch.eye(6, dtype=D))
    torch.testing.assert_close(belief.Sigma, inverse, atol=1e-10, rtol=0)


def test_one_step_is_the_equation():
    """(30) written out, with the Jacobian by finite differences."""
    model, R, Q = small(), 0.1, 1e-3
    start, (u, v) = initial_belief(model, 2.0), (a[:2] for a in wave())
    after = kalman_step(model, R, Q)(start, (u, v))
    p, eps = len(start.w), 1e-6
    steps = eps * torch.eye(p, dtype=D)[..., None]
    J = torch.stack([(predicted(model, start.w + e, u) - predicted(model, start.w - e, u)).flatten()
                     for e in steps], -1) / (2 * eps)  # fmt: skip
    K = torch.linalg.solve(J @ start.Sigma @ J.mT + R * torch.eye(2), J @ start.Sigma).mT
    error = (v - model(u)).detach().flatten()[:, None]
    torch.testing.assert_close(after.w, start.w + K @ error, atol=1e-7, rtol=0)
    expected = start.Sigma - K @ J @ start.Sigma + Q * torch.eye(p)
    torch.testing.assert_close(after.Sigma, expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(after.loss, error.square().mean())


def test_the_step_is_pure_and_several_networks_are_one_step_mapped():
    models, pair = [small(k) for k in range(3)], wave()
    step = kalman_step(models[0], 0.1, 1e-4)
    beliefs = [initial_belief(model, 1.0) for model in models]
    copy = [field.clone() for field in beliefs[0]]
    one = [step(belief, pair) for belief in beliefs]
    stacked = Belief(*(torch.stack(field) for field in zip(*beliefs, strict=True)))
    pairs = tuple(part.expand(3, *part.shape) for part in pair)
    for k, field in enumerate(torch.func.vmap(step)(stacked, pairs)):
        torch.testing.assert_close(field, torch.stack([belief[k] for belief in one]))
    for before, after in zip(copy, beliefs[0], strict=True):
        assert torch.equal(before, after)
    assert torch.equal(initial_belief(models[0], 1.0).w, copy[0])


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_it_trains_and_the_covariance_stays_positive(dtype):
    """Eight epochs bring the training error near the noise, 0.05; float32 rounding does no harm."""
    model, pairs = small(dtype=dtype), wave(dtype=dtype)
    step = kalman_step(model, 0.05**2, 1e-5)
    arrivals = islice(batches(*pairs, 2, seed=5), 240)
    belief = last(accumulate(arrivals, step, initial=initial_belief(model, 10.0)))
    assert belief.w.dtype == dtype and torch.linalg.eigvalsh(belief.Sigma).min() > 0
    rms = (predicted(model, belief.w, pairs[0]) - pairs[1]).square().mean().sqrt()
    assert rms < 0.1


def test_as_training_it_reports_stops_and_keeps_the_best():
    model, (u, v) = small(), wave()
    scores = iter([3.0, 1.0, 2.0])
    kept = []
    for p in kalman_training(
        model, batches(u, v, 5, 0), 30, R=0.01, validate=lambda m: next(scores), every=10
    ):
        assert isinstance(p, Progress) and p.model is model and p.steps == 30
        assert math.isnan(p.lr) and p.loss > 0
        if p.step == 20:
            kept = [q.detach().clone() for q in model.parameters()]
    assert (p.step, p.validation, p.best) == (30, 2.0, 1.0)
    assert all(map(torch.equal, kept, model.parameters()))

    model = small()
    run = kalman_training(model, batches(u, v, 5, 0), 30, R=0.01)
    before = [q.detach().clone() for q in model.parameters()]
    assert all(map(torch.equal, before, model.parameters()))  # nothing happens until iterated
    first = next(run)
    run.close()  # `break`: without validation it stays where it is
    step = kalman_step(small(), 0.01)
    expected = step(initial_belief(small(), 1.0), next(batches(u, v, 5, 0)))
    found = torch.nn.utils.parameters_to_vector(model.parameters())[:, None]
    assert torch.equal(found, expected.w) and first.loss == expected.loss.item()


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"R": 0.0}, "R: got 0, expected a positive variance"),
        ({"R": math.nan}, "R: got nan, expected a positive"),
        ({"Q": -1.0}, "Q: got -1, expected a variance of 0 or more"),
        ({"Sigma": 0.0}, "Sigma: got 0, expected a positive variance"),
        ({"R": torch.ones(2)}, r"R: got shape \(2,\), expected a number or"),
        ({"steps": 0}, "steps: got 0, expected a whole number"),
        ({"every": 1.5}, "every: got 1.5, expected a whole number"),
        ({"Sigma": torch.eye(3)}, "got 3 rows, expected 19"),
    ],
)
def test_bad_input_is_told_before_anything_is_computed(about, told):
    with pytest.raises(ValueError, match=told):
        kalman_training(small(), iter(()), **{"steps": 5, "R": 1.0} | about)


def test_a_loss_that_is_not_finite_is_told():
    u, v = wave()
    with pytest.raises(FloatingPointError, match="loss: got nan at step 0"):
        list(kalman_training(small(), batches(u, v * math.nan, 5, 0), 3, R=0.1))
