"""What fills the slots: covariances of snapshots, and the subspace of a covariance."""

import torch

from .problem import checked_covariance

# ---- Covariances -------------------------------------------------------------------------------


def sample_covariance(x):
    """R = X Xᴴ/T of snapshots x (..., n, T), complex, one column each.

    Raises TypeError or ValueError unless x is complex, finite and has a snapshot.
    """
    if not isinstance(x, torch.Tensor) or not x.is_complex():
        came = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
        raise TypeError(f"x: got {came}, expected complex snapshots (..., n, T)")
    if x.ndim < 2 or not x.shape[-1]:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected (..., n, T), T ≥ 1")
    R = x @ x.mH / x.shape[-1]
    if not R.isfinite().all():  # smaller than x, and as bad
        raise ValueError("x: got NaN or Inf, expected finite snapshots")
    return R


def lagged(x, lags):
    """R_k = Σ_t x_{t+k} x_tᴴ/(T − k) for k = 0, ..., lags − 1, (..., lags, n, n).

    White noise is in R_0 only; signals are in all, if their snapshots are correlated.
    ValueError unless 1 ≤ lags ≤ T.
    """
    R = sample_covariance(x)
    T = x.shape[-1]
    if not isinstance(lags, int) or not 1 <= lags <= T:
        raise ValueError(f"lags: got {lags!r}, expected a whole number, 1 to T = {T}")
    later = [x[..., k:] @ x[..., :-k].mH / (T - k) for k in range(1, lags)]
    return torch.stack([R, *later], -3)


def forward_backward(R):
    """(R + J R̄ J)/2, J the exchange: the array read from its other end sees conjugate phases.

    For arrays that are symmetric about their middle. It separates two coherent sources, unless
    their phases are equal or opposite there.
    """
    checked_covariance(R)
    return (R + R.flip(-1, -2).conj()) / 2


def smoothed(R, size):
    """The mean of the covariances (..., size, size) of all subarrays of `size` neighbours.

    n − size + 1 subarrays separate as many coherent sources; size − 1 of them can be located.
    Needs a uniform line. Shan, Wax, Kailath 1985, "On spatial smoothing for direction-of-arrival
    estimation of coherent signals", doi 10.1109/TASSP.1985.1164649. ValueError unless
    2 ≤ size ≤ n.
    """
    checked_covariance(R)
    n = R.shape[-1]
    if not isinstance(size, int) or not 2 <= size <= n:
        raise ValueError(f"size: got {size!r}, expected a whole number, 2 to n = {n}")
    # the diagonal blocks are the diagonal of all blocks: (n − size + 1, n − size + 1, size, size)
    blocks = R.unfold(-2, size, 1).unfold(-2, size, 1)
    return blocks.diagonal(dim1=-4, dim2=-3).mean(-1)


# ---- The subspace ------------------------------------------------------------------------------


def signal_subspace(R, sources):
    """E (..., n, sources): orthonormal eigenvectors of R (..., n, n) of the largest eigenvalues.

    To first order in R they turn by U_n (U_nᴴ dR U_s / (λ_s − λ_n)): only the gaps between signal
    and noise count, so that equal eigenvalues inside either subspace do no harm, and a gap is taken
    as no smaller than sqrt(eps) λ_1, so that gradients are always finite.
    Raises TypeError or ValueError if R is no covariance, has no fewer sensors than sources, or has
    a smaller rank than `sources`.
    """
    checked_covariance(R, sources)
    values, vectors = torch.linalg.eigh(R.detach())
    eps, most = torch.finfo(values.dtype).eps, values[..., -1:]
    if not (values[..., -sources] > 10 * eps * most[..., 0]).all():
        raise ValueError(
            f"R: got a rank below {sources} sources; are there fewer snapshots than sources, or "
            "coherent sources without noise? `smoothed` and `forward_backward` raise it"
        )
    noise, signal = vectors.tensor_split([vectors.shape[-1] - sources], -1)
    if not R.requires_grad:
        return signal
    gap = values[..., None, -sources:] - values[..., :-sources, None]
    turn = noise.mH @ (R - R.detach()) @ signal / gap.clamp(min=eps**0.5 * most[..., None])
    return signal + noise @ turn
