"""What fills ISTA's and ADMM's slots: the model's own parts, and the learned ones.

A part maps (x, H) to a function of the state and of θ; it hands on what it does not use, for the
shrinkage. Equation numbers as in the package's docstring.
"""

import torch

from mbdl_course.operators import times

from .problem import positive

# ---- Model-based parts -----------------------------------------------------------------------


def lipschitz(H):
    """L = ‖H‖², the largest eigenvalue of HᵀH: ISTA converges for 0 < μ < 2/L, usually μ = 1/L."""
    if isinstance(H, torch.Tensor):
        return torch.linalg.matrix_norm(H, 2).square()
    double = any(b.dtype == torch.float64 for b in H.buffers())
    kind = {"dtype": torch.float64 if double else torch.float32}
    v = torch.ones(H.shape[1], 1, device=next(H.buffers()).device, **kind)
    for _ in range(200):  # power iteration: an operator has no matrix to decompose
        v = H.mT @ (H @ v)
        norm = v.norm()
        v = v / norm
    return norm


def gradient(x, H):
    """ISTA's own part: θ = (μ, ρ) ↦ v = s + μHᵀ(x − Hs), β = μρ; (15)."""

    def move(s, mu, rho, *rest):
        positive("mu", mu)
        return s + mu * (H.mT @ (x - H @ s)), mu * rho, *rest

    return move


def analytic_weights(H):
    """B (n, m) with b_jᵀh_j = 1 and the least Σ (b_iᵀh_j)² otherwise: b_j = G h_j / h_jᵀG h_j.

    G = (HHᵀ)⁻¹. Liu, Chen, Wang, Yin 2019, "ALISTA", ICLR, here in closed form.
    """
    B = torch.linalg.solve(H @ H.mT, H)
    return B / (H * B).sum(0)


def with_back(x, H):
    """ISTA's part with a Bᵀ that arrives in the place of Hᵀ: θ = (B, μ, ρ) ↦ s + μBᵀ(x − Hs), μρ.

    With B = `analytic_weights(H)`, frozen, it is ALISTA's: two numbers a layer are learned. Liu,
    Chen, Wang, Yin 2019, ICLR.
    """
    return lambda s, B, mu, rho, *rest: (s + mu * times(B.mT, x - H @ s), mu * rho, *rest)


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


def gram(x, H):
    """Greedy coordinate descent's own part: S = I − HᵀH, whose column j tells the others of a move.

    ρ ↦ (S, ρ). The columns of H have norm 1.
    """
    matrix = H.matrix
    S = torch.eye(matrix.shape[1], dtype=x.dtype, device=x.device) - matrix.mT @ matrix
    return lambda rho: (S, rho)


# ---- Learned parts ---------------------------------------------------------------------------


def matrices(x, H):
    """LISTA's part: θ = (W1, W2, β) ↦ v = W1 x + W2 s; H is not used.

    (22) with its factor μ_k absorbed by W2, which learns it as well. Filled with W1 = μHᵀ,
    W2 = I − μHᵀH, β = μρ it is `gradient`.
    """
    return lambda s, W1, W2, *rest: (times(W1, x) + times(W2, s), *rest)


def coupled(x, H):
    """LISTA-CP's part: θ = (W1, β) ↦ v = s + W1 (x − Hs), which is W2 = I − W1 H in `matrices`.

    Chen, Liu, Wang, Yin 2018, "Theoretical Linear Convergence of Unfolded ISTA and its Practical
    Weights and Thresholds", arXiv 1808.10038. Filled with W1 = μHᵀ, β = μρ it is `gradient`.
    """
    return lambda s, W1, *rest: (s + times(W1, x - H @ s), *rest)


def learned_gram(x, H):
    """LCoD's part: θ = (S, β), handed on; filled with S = I − HᵀH, β = ρ it is `gram`."""
    return lambda S, beta: (S, beta)


def filters(x, H):
    """The learned part of ADMM: θ = (W1, W2, λ, μ, ρ) ↦ s = W1 x + W2 (v − u); (20).

    Filled with W1 = (HᵀH + 2λI)⁻¹Hᵀ and W2 = 2λ(HᵀH + 2λI)⁻¹ it is `ridge`.
    """
    return lambda z, W1, W2, lam, mu, rho: (times(W1, x) + times(W2, z), lam, mu, rho)
