"""Smoothing: against the joint Gaussian, statsmodels, the gradient, and by laws."""

import numpy as np
import pytest
import torch
from test_tracking import MODELS, draw, evidence, known, posterior, random_model

from mbdl_course.fold import repeat
from mbdl_course.smoothing import by_gradient, messages, rts
from mbdl_course.tracking import (
    Belief,
    Gain,
    Model,
    extended,
    filtered,
    history,
    lorenz,
    mse_db,
    nees,
    riccati,
    unscented,
)

D = torch.float64


@pytest.mark.parametrize("rule", [riccati, unscented])
@pytest.mark.parametrize("name", MODELS)
def test_smoother_is_the_joint_gaussian_posterior(name, rule):
    model, start = MODELS[name]
    x, _, _ = draw(model, horizon=9, count=2, start=start)
    smooth = rts(history(filtered(x, model, rule(model), start)))
    m = len(model.Q)
    for i in range(2):
        s, P = posterior(model, start, x[:, i], 9)
        assert (smooth.s[:, i].reshape(-1, 1) - s).abs().max() < 1e-9 * s.abs().max().clamp(min=1)
        blocks = P.reshape(9, m, 9, m).diagonal(dim1=0, dim2=2).movedim(-1, 0)
        assert (smooth.Sigma[:, 0] - blocks).abs().max() < 1e-9 * P.abs().max().clamp(min=1)


def test_smoother_fills_in_what_is_missing():
    model, start = MODELS["random"]
    x, _, _ = draw(model, horizon=9, count=2, start=start)
    x[3:6, 0] = torch.nan
    smooth = rts(history(filtered(x, model, riccati(model), start, missing=True)))
    s, P = posterior(model, start, x[:, 0], 9)
    torch.testing.assert_close(smooth.s[:, 0].reshape(-1, 1), s, atol=1e-9, rtol=0)
    torch.testing.assert_close(smooth.Sigma[4, 0], P[12:15, 12:15], atol=1e-9, rtol=0)


def test_statsmodels_agrees_on_the_nile():
    UnobservedComponents = pytest.importorskip("statsmodels.api").tsa.UnobservedComponents
    from mbdl_course import datasets

    x = datasets.nile()[:, None, None]
    one = torch.ones(1, 1, dtype=D)
    model, start = Model(one, one, 1478.8 * one, 15078.0 * one), Belief(0 * one, 1e7 * one)
    theirs = UnobservedComponents(x[:, 0, 0].numpy(), "llevel")
    theirs.initialize_known(np.array([0.0]), np.array([[1e7 + 1478.8]]))
    found = theirs.smooth([15078.0, 1478.8])
    smooth = rts(history(filtered(x, model, riccati(model), start)))
    np.testing.assert_allclose(smooth.s[:, 0, 0], found.smoothed_state[0], rtol=1e-8)
    np.testing.assert_allclose(smooth.Sigma[:, 0, 0], found.smoothed_state_cov[0, 0], rtol=1e-7)


def test_smoothing_a_chaotic_system_beats_filtering():
    model = lorenz(0.02, 0.01, 1.0)
    start = Belief(torch.ones(3, 1, dtype=D), torch.eye(3, dtype=D))
    x, s, _ = draw(model, horizon=100, count=20, start=start)
    beliefs = history(filtered(x, model, extended(model), start))
    smooth = rts(beliefs)
    assert mse_db(smooth.s, s) < mse_db(beliefs.s, s) - 2
    assert 2.4 < nees(smooth.s, smooth.Sigma, s).mean() < 3.6


def test_messages_add_up_to_the_gradient_of_the_joint_log_likelihood():
    model, start = random_model(3, 2, seed=4), known(3, 0.5)
    x, _, _ = draw(model, horizon=6, count=1, start=start)
    x = x[:, 0]
    s = torch.randn(6, 3, 1, generator=torch.Generator().manual_seed(1), dtype=D)

    def log_joint(s):
        F, H, Q, R = model
        total = -((x - H @ s) * torch.linalg.solve(R, x - H @ s)).sum() / 2
        first = s[0] - F @ start.s
        spread = F @ start.Sigma @ F.mT + Q
        total = total - (first * torch.linalg.solve(spread, first)).sum() / 2
        step = s[1:] - F @ s[:-1]
        return total - (step * torch.linalg.solve(Q, step)).sum() / 2

    (right,) = torch.autograd.grad(log_joint(s.requires_grad_()), s)
    torch.testing.assert_close(sum(messages(s.detach(), x, model, start)), right)
    assert evidence(model, start, x).isfinite()


def test_climbing_the_likelihood_ends_at_the_smoother():
    model, start = random_model(2, 2, seed=5), known(2, 1.0)
    x, _, _ = draw(model, horizon=8, count=3, start=start)
    smooth = rts(history(filtered(x, model, riccati(model), start)))
    *_, s = by_gradient(x, model, repeat(0.02, 6000), start)
    torch.testing.assert_close(s, smooth.s, atol=1e-6, rtol=0)
    again = next(by_gradient(x, model, repeat(0.02, 1), start, first=smooth.s))
    assert torch.equal(again, smooth.s)


def test_one_observation_smooths_to_the_filter():
    model, start = MODELS["random"]
    x, _, _ = draw(model, horizon=1, start=start)
    beliefs = history(filtered(x, model, riccati(model), start))
    assert torch.equal(rts(beliefs).s, beliefs.s)


def test_bad_input_is_named():
    model, start = MODELS["random"]
    x, _, _ = draw(model, start=start)

    def constant(belief, x, seen=None):
        s = model.F @ belief.s
        return Gain(torch.zeros(3, 2, dtype=D), s, model.H @ s)

    with pytest.raises(ValueError, match="beliefs: got no covariances"):
        rts(history(filtered(x, model, constant, start)))
    with pytest.raises(ValueError, match="first: got shape"):
        by_gradient(x, model, [0.1], start, first=x)
    with pytest.raises(ValueError, match="Q: got a singular"):
        by_gradient(x, model._replace(Q=0 * model.Q), [0.1], start)
    with pytest.raises(ValueError, match="x: got shape"):
        by_gradient(x[..., :1, :], model, [0.1], start)
