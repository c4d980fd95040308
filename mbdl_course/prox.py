"""Proximal maps: prox_g(v) = argmin_z g(z) + ½‖z − v‖² (13 in Shlezinger, Eldar, Boyd 2022)."""

import torch

__all__ = [
    "hard_threshold",
    "keep_largest",
    "row_threshold",
    "select_support",
    "singular_value_threshold",
    "smooth_hard_threshold",
    "soft_threshold",
]


def soft_threshold(v, beta):
    """T_β(v) = sign(v) max(|v| − β, 0), the proximal map of β‖·‖₁.

    v any shape, β ≥ 0 broadcasts against it. A β that is learned is a tensor: then it is written
    as v − clamp(v, −β, β), with the same gradient in v and in β. A number goes to torch's own
    one-pass routine. ValueError for a negative number.
    Source: (15) in Shlezinger, Eldar, Boyd 2022, doi 10.1109/ACCESS.2022.3218802.
    """
    if not isinstance(beta, torch.Tensor):
        if not beta >= 0:
            raise ValueError(f"beta: got {beta:g}, expected a threshold of 0 or more")
        return torch.nn.functional.softshrink(v, beta)
    return v - torch.minimum(torch.maximum(v, -beta), beta)


def hard_threshold(v, beta):
    """H_β(v) = v where |v| > β, else 0: the proximal map of (β²/2)‖·‖₀.

    Its derivative in β is zero wherever it exists: a hard threshold cannot learn by gradients.
    """
    return torch.where(v.abs() > beta, v, torch.zeros_like(v))


def keep_largest(v, sparsity):
    """The projection onto {z : ‖z‖₀ ≤ sparsity}, per column vector of v (..., m, 1).

    Raises ValueError unless 1 ≤ sparsity ≤ m.
    """
    m = v.shape[-2]
    if not 1 <= sparsity <= m:
        raise ValueError(f"sparsity: got {sparsity}, expected 1 to m = {m}")
    support = v.abs().topk(sparsity, dim=-2).indices
    return torch.zeros_like(v).scatter(-2, support, v.gather(-2, support))


def smooth_hard_threshold(v, beta, width=0.1):
    """v σ((|v| − β)/width β): `hard_threshold` with a gate that opens gradually, so that β learns.

    As width → 0 it becomes `hard_threshold`. ValueError unless width > 0.
    """
    if not width > 0:
        raise ValueError(f"width: got {width:g}, expected a positive number")
    return v * torch.sigmoid((v.abs() - beta) / (width * beta))


def select_support(v, beta, kept):
    """T_β(v), but the `kept` largest entries of each column pass unshrunk if they exceed β.

    Which ones is decided without a gradient. kept=0 is `soft_threshold`, kept=m `hard_threshold`.
    Chen, Liu, Wang, Yin 2018, arXiv 1808.10038. ValueError unless 0 ≤ kept ≤ m.
    """
    m = v.shape[-2]
    if not 0 <= kept <= m:
        raise ValueError(f"kept: got {kept}, expected 0 to m = {m}")
    if kept == 0:
        return soft_threshold(v, beta)
    size = v.detach().abs()
    smallest = size.topk(kept, dim=-2).values[..., -1:, :]
    return torch.where((size >= smallest) & (size > beta), v, soft_threshold(v, beta))


def row_threshold(V, beta):
    """max(1 − β/‖v_i‖₂, 0) v_i for each row v_i of V (..., n, t): the proximal map of β‖·‖₁,₂.

    ‖V‖₁,₂ = Σ_i ‖v_i‖₂: rows are kept or dropped as a whole, and the phases of complex entries
    stay. β ≥ 0 is a number or a tensor that broadcasts; the gradient is finite at zero rows.
    ValueError for a negative number.
    """
    beta = threshold(V, beta)
    tiny = torch.finfo(V.dtype).tiny
    norm = torch.linalg.vector_norm(V, dim=-1, keepdim=True)
    return V * (1 - beta / torch.maximum(norm, beta).clamp(min=tiny))


def singular_value_threshold(V, beta):
    """U diag(max(σ_i − β, 0)) Wᴴ for V = U diag(σ) Wᴴ (..., n, t): the proximal map of β‖·‖_*.

    Computed as V f(VᴴV), or f(VVᴴ) V where n < t, with f(σ²) = max(1 − β/σ, 0): the smaller Gram
    matrix is decomposed, and what the square root loses, σ below 10⁻⁴ of the largest in float32,
    is below any useful β. Gradients are finite, at equal and at zero singular values too. β ≥ 0 is
    a number or a tensor that broadcasts. ValueError for a negative number.
    Source: Cai, Candès, Shen 2010, "A Singular Value Thresholding Algorithm for Matrix Completion",
    arXiv 0810.3286, (2.2), Theorem 2.1.
    """
    beta = threshold(V, beta)
    if V.shape[-2] < V.shape[-1]:
        return SpectralGain.apply(gram(V.mH.resolve_conj()), beta) @ V
    return V @ SpectralGain.apply(gram(V), beta)


def gram(V):
    """VᴴV; of complex V by one real product, which is twice as fast as torch's complex one."""
    if not V.is_complex():
        return V.mT @ V
    P = torch.view_as_real(V).flatten(-2)  # real and imaginary parts by turns
    M = (P.mT @ P).unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))  # (..., t, 2, t, 2)
    (rr, ri), (ir, ii) = (m.unbind(-1) for m in M.unbind(-3))
    return torch.complex(rr + ii, ri - ir)


def threshold(V, beta):
    """β as a real tensor beside V; ValueError for a number below 0."""
    if not isinstance(beta, torch.Tensor):
        if not beta >= 0:
            raise ValueError(f"beta: got {beta:g}, expected a threshold of 0 or more")
        beta = V.real.new_full((), beta)  # filled there, not copied
    return beta


class SpectralGain(torch.autograd.Function):
    """f(G) = W diag(max(1 − β/σ_i, 0)) Wᴴ of a Gram matrix G = W diag(σ²) Wᴴ, differentiable.

    The derivative of a matrix function is Wᴴ df W = Φ ∘ (Wᴴ dG W) with the divided differences
    Φ_ij = (f_i − f_j)/(σ_i² − σ_j²) (Daleckii, Krein). With a_i = max(σ_i, β) they are
    β/(a_i a_j (σ_i + σ_j)) · (a_i − a_j)/(σ_i − σ_j), whose last factor is 1 where both σ exceed β
    and 0 where none does: nothing is divided by a difference that can vanish.
    """

    @staticmethod
    def forward(ctx, G, beta):
        energy, W = torch.linalg.eigh(G)
        sigma = energy.clamp(min=0).sqrt()
        raised = torch.maximum(sigma, beta[..., 0] if beta.ndim else beta)
        raised = raised.clamp(min=torch.finfo(sigma.dtype).tiny)
        gain = 1 - (beta[..., 0] if beta.ndim else beta) / raised
        ctx.save_for_backward(W, sigma, raised, beta)
        return (W * gain[..., None, :]) @ W.mH

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        W, sigma, raised, beta = ctx.saved_tensors
        kept = sigma > (beta[..., 0] if beta.ndim else beta)
        inner = W.mH @ ((grad + grad.mH) / 2) @ W
        a, b = raised[..., :, None], raised[..., None, :]
        difference = sigma[..., :, None] - sigma[..., None, :]
        both = kept[..., :, None] & kept[..., None, :]
        one = kept[..., :, None] ^ kept[..., None, :]
        slope = torch.where(one, (a - b) / torch.where(one, difference, 1), both.to(a.dtype))
        total = torch.where(both | one, sigma[..., :, None] + sigma[..., None, :], 1)
        to_gram = W @ (beta / a / b * slope / total * inner) @ W.mH
        on_diagonal = torch.where(kept, -1 / raised, 0) * inner.diagonal(dim1=-2, dim2=-1).real
        to_beta = on_diagonal.sum(-1)[..., None, None]
        return to_gram, to_beta.sum_to_size(beta.shape) if beta.ndim else to_beta.sum()
