"""The problem: x = H s + w with few non-zeros in s, its objective, its certificate, its oracle."""

import math

import torch

from mbdl_course.operators import as_operator
from mbdl_course.prox import soft_threshold


def gaussian_matrix(n, m, generator, rows="free", dtype=torch.float64):
    """A random H (n, m): Gaussian entries with unit-norm columns, or with orthonormal rows.

    rows="free": the columns have norm 1. rows="orthonormal": H Hᵀ = I, so that ‖H‖² = 1.
    """
    H = torch.randn(n, m, generator=generator, dtype=torch.float64)
    if rows == "orthonormal":
        H = torch.linalg.qr(H.mT).Q.mT
    elif rows == "free":
        H = H / H.norm(dim=0)
    else:
        raise ValueError(f"rows: got {rows!r}, expected 'free' or 'orthonormal'")
    return H.to(dtype)


def sparse_signals(count, m, generator, sparsity=None, density=None, std=1.0, dtype=torch.float64):
    """Draw s (count, m, 1) with Gaussian non-zeros of standard deviation std.

    Either exactly `sparsity` non-zeros at random places, or each entry non-zero with probability
    `density`. Raises ValueError unless one of the two is given, 1 ≤ sparsity ≤ m, 0 < density ≤ 1.
    """
    if (sparsity is None) == (density is None):
        raise ValueError("sparsity, density: expected exactly one of the two")
    if sparsity is not None and not 1 <= sparsity <= m:
        raise ValueError(f"sparsity: got {sparsity}, expected 1 to m = {m}")
    if density is not None and not 0 < density <= 1:
        raise ValueError(f"density: got {density}, expected a probability above 0, at most 1")
    s = std * torch.randn(count, m, generator=generator, dtype=torch.float64)
    u = torch.rand(count, m, generator=generator, dtype=torch.float64)
    # the same two draws whatever the sparsity: a slider adds non-zeros to those already there
    kept = u < density if sparsity is None else u.argsort(-1).argsort(-1) < sparsity
    return (s * kept)[..., None].to(dtype)


def observed(s, H, noise, snr_db=math.inf):
    """x = H s + w with w the given unit-variance noise (..., n, 1), scaled to snr_db.

    SNR = Σ‖Hs‖² / Σ‖w‖² in expectation over w, over the whole batch: a weak signal in a batch has
    less than snr_db, as it would with a real sensor. snr_db = inf: no noise.
    """
    clean = as_operator(H) @ s
    power = clean.square().mean()
    return clean + noise * (power * 10 ** (-snr_db / 10)).sqrt()


def lasso(s, x, H, rho):
    """½‖x − Hs‖² + ρ‖s‖₁ per signal, shape (...); (14)."""
    residual = x - as_operator(H) @ s
    return residual.square().sum((-2, -1)) / 2 + rho * s.abs().sum((-2, -1))


def kkt_residual(s, x, H, rho):
    """How far s is from optimal: max |s − T_ρ(s + Hᵀ(x − Hs))| per signal; 0 at a LASSO solution.

    s is a fixed point of the proximal gradient map if and only if it minimises (14).
    """
    H = as_operator(H)
    return (s - soft_threshold(s + H.mT @ (x - H @ s), rho)).abs().amax((-2, -1))


def coherence(H, B=None):
    """max |b_iᵀh_j| over i ≠ j: how much one column of H looks like another, seen through B.

    B = H (default) with unit columns: the mutual coherence. b_jᵀh_j = 1: the generalized one, which
    `analytic_weights` makes small. Liu, Chen, Wang, Yin 2019, "ALISTA", ICLR.
    """
    product = (H if B is None else B).mT @ H
    return (product - torch.diag(product.diagonal())).abs().max()


def transition(part):
    """The measurements per unknown, n/m, at which min ‖s‖₁ subject to Hs = x begins to succeed.

    ψ(ρ) = min_τ ρ(1 + τ²) + (1 − ρ) E max(|g| − τ, 0)², g standard normal: with `part` ρ of m
    entries non-zero and a Gaussian H, below it recovery fails with high probability, above it
    succeeds. Amelunxen, Lotz, McCoy, Tropp 2014, doi 10.1093/imaiai/iau005, Proposition 4.5.
    Raises ValueError unless 0 <= part <= 1.
    """
    if not 0 <= part <= 1:
        raise ValueError(f"part: got {part}, expected a part of the entries, 0 to 1")

    def tail(t):  # the density at t, the probability beyond t
        return math.exp(-t * t / 2) / math.sqrt(2 * math.pi), math.erfc(t / math.sqrt(2)) / 2

    low, high = 0.0, 40.0
    for _ in range(80):  # the slope of what is minimised rises: where is it zero?
        middle = (low + high) / 2
        density, beyond = tail(middle)
        falling = part * middle < 2 * (1 - part) * (density - middle * beyond)
        low, high = (middle, high) if falling else (low, middle)
    density, beyond = tail(low)
    over = 2 * ((1 + low**2) * beyond - low * density)
    return part * (1 + low**2) + (1 - part) * over


def least_squares_on(support, x, H):
    """The oracle: least squares on the true support (..., m, 1), zero elsewhere.

    Normal equations with the rows outside the support replaced by s_i = 0. No estimator that has to
    find the support can be expected to do better.
    """
    kept = support.to(x.dtype)
    outside = torch.diag_embed(1 - kept[..., 0])
    return torch.linalg.solve(kept * (H.mT @ H) * kept.mT + outside, kept * (H.mT @ x))


def checked(x, H):
    """H as an operator, once x and H are known to fit; ValueError/TypeError names what does not."""
    if not isinstance(x, torch.Tensor) or not x.dtype.is_floating_point:
        came = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
        raise TypeError(f"x: got {came}, expected a floating-point tensor")
    if isinstance(H, torch.Tensor) and H.ndim < 2:
        raise ValueError(f"H: got shape {tuple(H.shape)}, expected a matrix (n, m)")
    n = H.shape[-2] if isinstance(H, torch.Tensor) else H.shape[0]
    if x.ndim < 2 or tuple(x.shape[-2:]) != (n, 1):
        raise ValueError(
            f"x: got shape {tuple(x.shape)}, expected column vectors (..., {n}, 1) to fit H "
            f"{tuple(H.shape)}"
        )
    for b in [H] if isinstance(H, torch.Tensor) else H.buffers():
        if b.dtype.is_floating_point and b.dtype != x.dtype:
            raise TypeError(f"H: got {b.dtype}, expected the dtype of x, {x.dtype}")
        if b.device != x.device:
            raise ValueError(f"H: got device {b.device}, expected the device of x, {x.device}")
    if not x.isfinite().all():
        raise ValueError("x: got NaN or Inf, expected finite observations")
    return as_operator(H)


def begin(x, H, start):
    """The initial state: zero, or the given start once it fits."""
    shape = (*x.shape[:-2], H.shape[-1], 1)
    if start is None:
        return x.new_zeros(shape)
    if tuple(start.shape[-2:]) != shape[-2:]:
        raise ValueError(f"start: got shape {tuple(start.shape)}, expected {shape}")
    return start


def positive(name, value):
    """ValueError unless value > 0; not on a GPU, which would have to be waited for."""
    if isinstance(value, torch.Tensor) and value.is_cuda:
        return
    if not value > 0:
        raise ValueError(f"{name}: got {float(value):g}, expected a positive number")
