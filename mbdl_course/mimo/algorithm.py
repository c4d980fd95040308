"""The detectors: one-shot, exhaustive, and steps folded over the parameters that arrive."""

from itertools import accumulate
from typing import NamedTuple

import torch

from mbdl_course.fold import last
from mbdl_course.operators import solve

from .parts import box, gaussian_decision
from .problem import GAUSSIAN, candidates, checked

# ---- The reference -----------------------------------------------------------------------------


def maximum_likelihood(x, H, snr_db=0.0, log_likelihood=GAUSSIAN.log_likelihood):
    """The most likely of all 2^m symbol vectors, ŝ (..., m, 1); MAP where all are equally likely.

    x (..., n, 1), H (..., n, m); (15) in Shlezinger, Whang, Eldar, Dimakis 2023 for Gaussian noise,
    whose decision does not depend on the SNR. Candidates arrive in blocks of 64; the best so far is
    the state. Raises ValueError past 2^16 candidates, and for a misshapen or non-finite input.
    """
    checked(x, H)
    S = candidates(H.shape[-1], x)

    def step(state, block):
        best, s_hat = state
        score, k = log_likelihood(x, block, H, snr_db).max(-1)
        better = score > best
        found = block.mT[k].unsqueeze(-1)
        return torch.where(better, score, best), torch.where(better[..., None, None], found, s_hat)

    leading = torch.broadcast_shapes(x.shape[:-2], H.shape[:-2])
    start = x.new_full(leading, -torch.inf), x.new_zeros(*leading, H.shape[-1], 1)
    return last(accumulate(S.split(64, -1), step, initial=start))[1]


# ---- Linear ------------------------------------------------------------------------------------


def zero_forcing(x, H):
    """ŝ = (HᵀH)⁻¹Hᵀx, soft; needs as many antennas as users and H of full rank."""
    return mmse(x, H, 0.0)


def mmse(x, H, variance):
    """ŝ = (HᵀH + σ²I)⁻¹Hᵀx, soft: the least mean squared error a linear detector can have."""
    checked(x, H)
    eye = torch.eye(H.shape[-1]).to(H)
    return torch.linalg.solve(H.mT @ H + variance * eye, H.mT @ x)


class Linear(NamedTuple):
    """The linear model x ≈ Hs + offset that fits pilots best, and the variance it leaves."""

    H: torch.Tensor
    offset: torch.Tensor
    variance: torch.Tensor


def least_squares(x, s):
    """The Linear model (..., n, m), (..., n, 1), (..., n, 1) of pairs x (count, ..., n, 1), s
    (count, ..., m, 1). Raises ValueError for fewer pairs than unknowns."""
    if len(x) != len(s) or len(x) < s.shape[-2] + 2:
        raise ValueError(
            f"x, s: got {len(x)} and {len(s)} pairs, expected as many, {s.shape[-2] + 2} or more"
        )
    one = torch.cat([s, torch.ones_like(s[..., :1, :])], -2)
    both = torch.linalg.solve((one @ one.mT).sum(0), (one @ x.mT).sum(0)).mT
    left = (x - both @ one).square().sum(0) / (len(x) - one.shape[-2])
    return Linear(both[..., :-1], both[..., -1:], left)


# ---- Soft interference cancellation ------------------------------------------------------------


def soft_interference_cancellation(x, H, thetas, start=None, part=None, users=None):
    """log-odds ← decide(log-odds, θ): each user's symbol, the others cancelled as far as known.

    Yields the log-odds log p(s_k = 1)/p(s_k = −1), (..., m, 1), zero at first. The slot `part` maps
    (x, H) to decide: `gaussian_decision` (θ = (σ²,)) is the model's own, `learned_decision` is
    DeepSIC's, for which H may be None where `users` says m. Section IV-B of Shlezinger, Whang,
    Eldar, Dimakis 2023; Choi, Cheong, Cioffi 2000, "Iterative soft interference cancellation for
    multiple antenna systems", WCNC, pages 304-309.
    Raises ValueError/TypeError for a misshapen, non-finite or mixed input.
    """
    known = x.new_zeros(x.shape[-2], users) if users and H is None else H
    checked(x, known)
    decide = (part or gaussian_decision)(x, H)
    leading = torch.broadcast_shapes(x.shape[:-2], known.shape[:-2])
    zero = x.new_zeros(*leading, known.shape[-1], 1)
    return accumulate(
        thetas, lambda odds, theta: decide(odds, *theta), initial=zero if start is None else start
    )


# ---- Descent -----------------------------------------------------------------------------------


class Descent(NamedTuple):
    """The estimate, and what a learned step remembers."""

    s: torch.Tensor
    memory: torch.Tensor | None


def projected_gradient(x, H, thetas, variance=None, part=None):
    """s ← clip(s + μHᵀ(x − Hs), −1, 1), for θ = (μ,): least squares on the box of the symbols.

    Yields Descent from s = 0. The slot `part`: `box` is the model's own, `wide_projection` is
    DetNet's.
    σ² is not used. Raises ValueError/TypeError for a misshapen, non-finite or mixed input.
    """
    checked(x, H)
    move = (part or box)(x, H)
    start = Descent(torch.zeros_like(H.mT @ x), None)
    return accumulate(thetas, lambda state, theta: Descent(*move(*state, *theta)), initial=start)


# ---- Orthogonal approximate message passing ----------------------------------------------------


def oamp(x, H, thetas, variance):
    """r = s + γW(x − Hs), s ← E{s | r} = tanh(r/τ²), for θ = (γ, ϑ): both are 1 in OAMP.

    W is the LMMSE matrix scaled to tr(WH) = m; v² = (‖x − Hs‖² − nσ²)/tr(HᵀH), no less than
    σ²·10⁻³, is the error of s, and τ² = (‖I − ϑWH‖² v² + ϑ²‖W‖² σ²)/m that of r. Yields s from 0.
    Ma, Ping 2017, "Orthogonal AMP", doi 10.1109/ACCESS.2017.2653119; (γ, ϑ) of each layer learned:
    He, Wen, Jin, Li 2018, "A Model-Driven Deep Learning Network for MIMO Detection", arXiv
    1809.09336, with this denoiser (Ma and Ping's is divergence-free). variance: σ², a number or
    (..., 1, 1).
    Raises ValueError/TypeError for a misshapen, non-finite or mixed input.
    """
    checked(x, H)
    n, m = H.shape[-2:]
    variance = torch.as_tensor(variance, dtype=x.dtype, device=x.device)
    gram, matched, eye = H.mT @ H, H.mT @ x, torch.eye(m).to(H)

    def step(s, theta):
        gamma, scale = theta
        left = (x - H @ s).square().sum((-2, -1), keepdim=True)
        v = torch.maximum((left - n * variance) / squared(H), 1e-3 * variance)
        # v Hᵀ(v HHᵀ + σ²I)⁻¹ = (HᵀH + σ²/v I)⁻¹Hᵀ, a smaller system; only its scaling changes W
        K = solve(gram + variance / v * eye, torch.cat([gram, H.mT], -1))
        K = K * (m / K[..., :m].diagonal(dim1=-2, dim2=-1).sum(-1))[..., None, None]
        WH, W = K[..., :m], K[..., m:]
        tau = (squared(eye - scale * WH) * v + scale**2 * squared(W) * variance) / m
        r = s + gamma * (W @ (x - H @ s))
        return torch.tanh(r / tau)

    return accumulate(thetas, step, initial=torch.zeros_like(matched))


def squared(M):
    """‖M‖², the sum of squared entries, (..., 1, 1)."""
    return M.square().sum((-2, -1), keepdim=True)


def per_channel(algorithm):
    """The algorithm on a `Received`, where each observation brings its own H and σ²."""

    def detected(received, H, thetas, **slots):
        x, H, variance = received
        return algorithm(x, H, thetas, variance=variance, **slots)

    return detected
