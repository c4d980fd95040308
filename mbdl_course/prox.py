"""Proximal maps: prox_g(v) = argmin_z g(z) + ½‖z − v‖² (13 in Shlezinger, Eldar, Boyd 2022)."""

import torch

__all__ = [
    "hard_threshold",
    "keep_largest",
    "select_support",
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
    Chen, Liu, Wang, Yin 2018, arXiv 1808.10038, (11)-(13). ValueError unless 0 ≤ kept ≤ m.
    """
    m = v.shape[-2]
    if not 0 <= kept <= m:
        raise ValueError(f"kept: got {kept}, expected 0 to m = {m}")
    if kept == 0:
        return soft_threshold(v, beta)
    size = v.detach().abs()
    smallest = size.topk(kept, dim=-2).values[..., -1:, :]
    return torch.where((size >= smallest) & (size > beta), v, soft_threshold(v, beta))
