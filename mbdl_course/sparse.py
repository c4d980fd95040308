"""Sparse recovery: find s with few non-zeros from x = H s + w (chapters 03 and 04).

The objective is always ½‖x − Hs‖² + ρ‖s‖₁, (14) in Shlezinger, Eldar, Boyd 2022,
"Model-Based Deep Learning: On the Intersection of Deep Learning and Optimization",
doi 10.1109/ACCESS.2022.3218802, whose equation numbers are the ones cited below.
"""

import math
from itertools import accumulate
from typing import NamedTuple

import torch

from .operators import as_operator, times
from .prox import keep_largest, soft_threshold
from .unfold import Thetas, Unfolded

# ---- The problem -----------------------------------------------------------------------------


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


def least_squares_on(support, x, H):
    """The oracle: least squares on the true support (..., m, 1), zero elsewhere.

    Normal equations with the rows outside the support replaced by s_i = 0. No estimator that has to
    find the support can be expected to do better.
    """
    kept = support.to(x.dtype)
    outside = torch.diag_embed(1 - kept[..., 0])
    return torch.linalg.solve(kept * (H.mT @ H) * kept.mT + outside, kept * (H.mT @ x))


# ---- The algorithm ---------------------------------------------------------------------------


def ista(x, H, thetas, start=None, part=None, shrink=soft_threshold):
    """s_{k+1} = T_β(v), v = s_k + μ Hᵀ(x − H s_k), β = μρ: one state for each θ = (μ, ρ); (15).

    x (..., n, 1), H (n, m) or an operator, start (..., m, 1) or zero. The slot `part` maps (x, H)
    to what makes (v, β) from (s, θ); `gradient` is the model's own, `matrices` the learned one.
    Raises ValueError/TypeError for a misshapen, non-finite or mixed input.
    """
    H = checked(x, H)
    move = (part or gradient)(x, H)

    def step(s, theta):
        v, beta = move(s, *theta)
        return shrink(v, beta)

    return accumulate(thetas, step, initial=begin(x, H, start))


class Momentum(NamedTuple):
    """FISTA's state: the estimate s, the extrapolated point z, the momentum counter t."""

    s: torch.Tensor
    z: torch.Tensor
    t: float


def fista(x, H, thetas, start=None, part=None):
    """ISTA's step taken at z_k = s_k + (t_{k−1} − 1)/t_k (s_k − s_{k−1}); θ = (μ, ρ).

    Beck and Teboulle 2009, doi 10.1137/080716542, (4.1)-(4.3); objective gap O(1/k²).
    """
    H = checked(x, H)
    move = (part or gradient)(x, H)

    def step(state, theta):
        s = soft_threshold(*move(state.z, *theta))
        t = (1 + math.sqrt(1 + 4 * state.t**2)) / 2
        return Momentum(s, s + (state.t - 1) / t * (s - state.s), t)

    s = begin(x, H, start)
    return accumulate(thetas, step, initial=Momentum(s, s, 1.0))


class Split(NamedTuple):
    """ADMM's state: the sparse copy v (the estimate), the fitted copy s, the scaled dual u."""

    v: torch.Tensor
    s: torch.Tensor
    u: torch.Tensor


def admm(x, H, thetas, start=None, part=None):
    """s = (HᵀH + 2λI)⁻¹(Hᵀx + 2λ(v − u)); v = T_{ρ/2λ}(s + u); u ← u + μ(s − v); Algorithm 1.

    One state for each θ = (λ, μ, ρ). The estimate is v, the copy with exact zeros. The slot `part`
    maps (x, H) to what makes s from (v − u, θ) and hands on λ, μ, ρ: `ridge`, or learned `filters`.
    """
    H = checked(x, H)
    fit = (part or ridge)(x, H)

    def step(state, theta):
        s, lam, mu, rho = fit(state.v - state.u, *theta)
        v = soft_threshold(s + state.u, rho / (2 * lam))
        return Split(v, s, state.u + mu * (s - v))

    v = begin(x, H, start)
    return accumulate(thetas, step, initial=Split(v, v, torch.zeros_like(v)))


def iht(x, H, thetas, start=None):
    """s_{k+1} = the `sparsity` largest entries of s_k + μHᵀ(x − Hs_k); θ = (μ, sparsity).

    ISTA with another value in its shrinkage slot. Blumensath and Davies 2009,
    doi 10.1016/j.acha.2009.04.002; (32) in Monga, Li, Eldar 2021, doi 10.1109/MSP.2020.3016905.
    """

    def part(x, H):
        move = gradient(x, H)
        return lambda s, mu, sparsity: (move(s, mu, 0.0)[0], sparsity)

    return ista(x, H, thetas, start, part, shrink=keep_largest)


def coordinate_descent(x, H, rho, coordinates, start=None):
    """Minimise (14) over one coordinate at a time: what arrives are the coordinates j.

    s_j ← T_{ρ/‖h_j‖²}(s_j + h_jᵀ(x − Hs)/‖h_j‖²). The state is (s, x − Hs); H is a dense matrix.
    """
    operator = checked(x, H)
    if not isinstance(H, torch.Tensor):
        raise TypeError(f"H: got {type(H).__name__}, expected a dense matrix with columns")
    positive("rho", rho)
    energy = H.square().sum(0)
    s = begin(x, operator, start)

    def step(state, j):
        s, residual = state
        h = H[:, j, None]
        old = s[..., j, None, :]
        new = soft_threshold(old + h.mT @ residual / energy[j], rho / energy[j])
        return s.index_copy(-2, torch.as_tensor([j]), new), residual + h @ (old - new)

    return accumulate(coordinates, step, initial=(s, x - operator @ s))


# ---- Model-based parts -----------------------------------------------------------------------


def lipschitz(H):
    """L = ‖H‖², the largest eigenvalue of HᵀH: ISTA converges for 0 < μ < 2/L, usually μ = 1/L."""
    if isinstance(H, torch.Tensor):
        return torch.linalg.matrix_norm(H, 2).square()
    v = torch.ones(H.shape[1], 1, dtype=next(H.buffers()).new_zeros(()).float().dtype)
    v = v.to(torch.float64) if any(b.dtype == torch.float64 for b in H.buffers()) else v
    for _ in range(200):  # power iteration: an operator has no matrix to decompose
        v = H.mT @ (H @ v)
        norm = v.norm()
        v = v / norm
    return norm


def gradient(x, H):
    """ISTA's own part: θ = (μ, ρ) ↦ v = s + μHᵀ(x − Hs), β = μρ; (15)."""

    def move(s, mu, rho):
        positive("mu", mu)
        return s + mu * (H.mT @ (x - H @ s)), mu * rho

    return move


def analytic_weights(H):
    """B (n, m) with b_jᵀh_j = 1 and the least Σ (b_iᵀh_j)² otherwise: b_j = G h_j / h_jᵀG h_j.

    G = (HHᵀ)⁻¹. Liu, Chen, Wang, Yin 2019, "ALISTA", (10)-(11), here in closed form.
    """
    B = torch.linalg.solve(H @ H.mT, H)
    return B / (H * B).sum(0)


def with_back(B):
    """ISTA's part with Bᵀ in the place of Hᵀ: θ = (μ, ρ) ↦ v = s + μBᵀ(x − Hs), β = μρ."""
    B = as_operator(B)

    def part(x, H):
        return lambda s, mu, rho: (s + mu * (B.mT @ (x - H @ s)), mu * rho)

    return part


def ridge(x, H):
    """ADMM's own part: z ↦ (HᵀH + 2λI)⁻¹(Hᵀx + 2λz); θ = (λ, μ, ρ); Algorithm 1.

    With the eigenvalues HHᵀ = U diag(e) Uᵀ, found once, every λ costs two products with H:
    (HᵀH + 2λI)⁻¹b = (b − Hᵀ U diag(1/(e + 2λ)) Uᵀ H b)/2λ. Differentiable in λ.
    """
    matrix = H.matrix if hasattr(H, "matrix") else H.dense(dtype=x.dtype, device=x.device)
    e, U = torch.linalg.eigh(matrix @ matrix.mT)
    e = e.clamp(min=0)[:, None]
    correlation = H.mT @ x

    def fit(z, lam, mu, rho):
        positive("lam", lam)
        b = correlation + 2 * lam * z
        inner = times(U, times(U.mT, H @ b) / (e + 2 * lam))
        return (b - H.mT @ inner) / (2 * lam), lam, mu, rho

    return fit


# ---- Learned parts ---------------------------------------------------------------------------


def matrices(x, H):
    """LISTA's part: θ = (W1, W2, β) ↦ v = W1 x + W2 s; H is not used.

    (22) with its factor μ_k absorbed by W2, which learns it as well. Filled with W1 = μHᵀ,
    W2 = I − μHᵀH, β = μρ it is `gradient`.
    """
    return lambda s, W1, W2, beta: (times(W1, x) + times(W2, s), beta)


def LISTA(H, theta, depth=None, tied=(), back=None, dtype=None):
    """ISTA unfolded into layers with their own matrices, filled with the model's at first.

    theta = (μ, ρ) for all `depth` layers, or a list of one for each (a trained unfolded ISTA's,
    say); `back` stands in the place of H in Hᵀ. tied=(0, 1) shares the two matrices and keeps a
    threshold for each layer. Parameters: nm + m² + 1 a layer. Example 17; Gregor, LeCun 2010.
    """
    back = H if back is None else back
    eye = torch.eye(H.shape[1], dtype=H.dtype, device=H.device)

    def filled(mu, rho):
        return mu * back.mT, eye - mu * back.mT @ H, mu * rho

    theta = [filled(*t) for t in theta] if isinstance(theta, list) else filled(*theta)
    dtype = dtype or H.dtype
    thetas = Thetas(theta, depth, tied=tied, dtype=dtype, device=H.device)
    return Unfolded(ista, thetas, H=H.to(dtype), part=matrices)


def filters(x, H):
    """The learned part of ADMM: θ = (W1, W2, λ, μ, ρ) ↦ s = W1 x + W2 (v − u); (20).

    Filled with W1 = (HᵀH + 2λI)⁻¹Hᵀ and W2 = 2λ(HᵀH + 2λI)⁻¹ it is `ridge`.
    """
    return lambda z, W1, W2, lam, mu, rho: (times(W1, x) + times(W2, z), lam, mu, rho)


def UnfoldedADMM(H, theta, depth=None, tied=(), dtype=None):
    """ADMM unfolded into layers with W1, W2, λ, μ, ρ, filled with the model's; Example 16.

    theta = (λ, μ, ρ) for all `depth` layers, or a list of one for each; tied as in `LISTA`.
    Parameters: nm + m² + 3 a layer.
    """
    eye = torch.eye(H.shape[1], dtype=H.dtype, device=H.device)

    def filled(lam, mu, rho):
        regular = H.mT @ H + 2 * lam * eye
        W1, W2 = torch.linalg.solve(regular, H.mT), torch.linalg.solve(regular, 2 * lam * eye)
        return W1, W2, lam, mu, rho

    theta = [filled(*t) for t in theta] if isinstance(theta, list) else filled(*theta)
    dtype = dtype or H.dtype
    thetas = Thetas(theta, depth, tied=tied, dtype=dtype, device=H.device)
    return Unfolded(admm, thetas, H=H.to(dtype), part=filters)


# ---- Checks ----------------------------------------------------------------------------------


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
