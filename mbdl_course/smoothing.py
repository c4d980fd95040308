"""Smoothing: every state estimated from all observations, those after it too (chapters 09, 11).

What arrives are a filter's beliefs, last to first; or the smoother climbs the joint likelihood by
messages between neighbours, (33)-(35) in Shlezinger, Whang, Eldar, Dimakis 2023, "Model-Based Deep
Learning", doi 10.1109/JPROC.2023.3247480.
"""

from itertools import accumulate
from typing import NamedTuple

import torch

__all__ = ["Smoothed", "by_gradient", "messages", "rts"]


class Smoothed(NamedTuple):
    """The estimate s (T, ..., m, 1) of each state given all observations, and its covariance."""

    s: torch.Tensor
    Sigma: torch.Tensor


# ---- The algorithm: Rauch-Tung-Striebel --------------------------------------------------------


def rts(beliefs):
    """Rauch-Tung-Striebel: ŝ_t ← ŝ_t + G(ŝ_{t+1} − s⁻), Σ_t ← Σ_t + G(Σ_{t+1} − Σ⁻)Gᵀ, G = C(Σ⁻)⁻¹.

    beliefs: a filter's `history`. Its gains kept the expected state s⁻, Σ⁻ and the covariance C of
    it with the state before, so one smoother serves the Kalman, extended and unscented filter, and
    missing observations. A singular Σ⁻ (states moved without noise) gets its pseudo-inverse.
    Rauch, Tung, Striebel 1965, doi 10.2514/3.3166. ValueError if the gains kept no covariances.
    """
    gain = beliefs.gain
    if gain is None or gain.cross is None or gain.before is None or beliefs.Sigma is None:
        raise ValueError("beliefs: got no covariances, expected the history of a Kalman filter")
    before, cross = gain.before[1:], gain.cross[1:]
    tolerance = 100 * before.shape[-1] * torch.finfo(before.dtype).eps
    G = cross @ torch.linalg.pinv(before, rtol=tolerance, hermitian=True)

    def step(later, arriving):
        s, Sigma, G, expected, before = arriving
        return Smoothed(s + G @ (later.s - expected), Sigma + G @ (later.Sigma - before) @ G.mT)

    last = Smoothed(beliefs.s[-1], beliefs.Sigma[-1])
    forward = (beliefs.s[:-1], beliefs.Sigma[:-1], G, gain.s[1:], before)
    backward = zip(*(field.flip(0) for field in forward), strict=True)
    smooth = [*accumulate(backward, step, initial=last)][::-1]
    return Smoothed(torch.stack([b.s for b in smooth]), torch.stack([b.Sigma for b in smooth]))


# ---- The algorithm: messages between neighbours ------------------------------------------------


def messages(s, x, model, start):
    """The gradient of log p(x, s) in each s_t (T, ..., m, 1), as three messages that add up to it:

    from the past −Q⁻¹(s_t − F s_{t−1}), from the future FᵀQ⁻¹(s_{t+1} − F s_t), from what is
    observed HᵀR⁻¹(x_t − H s_t); (35). The text's (35c) prints F where the derivative gives H. The
    first state has the past F s_0 with covariance F Σ_0 Fᵀ + Q; the last has no future.
    """
    F, H, Q, R = model
    error = s[1:] - F @ s[:-1]
    expected, spread = F @ start.s, F @ start.Sigma @ F.mT + Q
    first = torch.linalg.solve(spread, s[:1] - expected)
    later = torch.linalg.solve(Q, error)
    past = -torch.cat([first, later])
    future = torch.cat([F.mT @ later, torch.zeros_like(s[:1])])
    return past, future, H.mT @ torch.linalg.solve(R, x - H @ s)


def by_gradient(x, model, gammas, start, first=None):
    """One s (T, ..., m, 1) for each step size γ that arrives: s ← s + γ (sum of `messages`), (34).

    It climbs to the posterior mean, the answer of `rts`, for γ below 2 over the largest curvature.
    `first` is where it begins: zeros if None. Linear models only. Raises ValueError for a model
    of functions, and for Q or R singular.
    """
    for name in ("F", "H"):
        if not isinstance(getattr(model, name), torch.Tensor):
            raise ValueError(f"{name}: got a function, expected a matrix")
    for name in ("Q", "R"):
        if torch.linalg.cholesky_ex(getattr(model, name).detach()).info.any():
            raise ValueError(f"{name}: got a singular matrix, expected a positive definite one")
    if x.ndim < 3 or x.shape[-2:] != (len(model.R), 1):
        raise ValueError(
            f"x: got shape {tuple(x.shape)}, expected (T, ..., {len(model.R)}, 1) to fit R"
        )
    if first is None:
        first = x.new_zeros(*x.shape[:-2], len(model.Q), 1)

    def step(s, gamma):
        return s + gamma * sum(messages(s, x, model, start))

    return accumulate(gammas, step, initial=first)
