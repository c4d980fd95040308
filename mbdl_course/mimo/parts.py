"""What fills the slot of soft interference cancellation and of descent: decisions."""

import torch

from mbdl_course.operators import solve

# ---- Model-based parts -------------------------------------------------------------------------


def gaussian_decision(x, H):
    """The model's own part: θ = σ², what is left of the others counts as Gaussian noise.

    log-odds ← 2 h_kᵀ Σ_k⁻¹ z_k, z_k = x − Σ_{l≠k} h_l e_l, Σ_k = σ²I + Σ_{l≠k} v_l h_l h_lᵀ, with
    the mean e = tanh(log-odds/2) and the variance v = 1 − e² of each symbol. (16) in Shlezinger,
    Whang, Eldar, Dimakis 2023 and the text below it. σ² may be (..., n, 1), one for each antenna.
    One matrix serves all: Σ = Σ_k + v_k h_k h_kᵀ, so h_kᵀΣ_k⁻¹ = h_kᵀΣ⁻¹/(1 − v_k h_kᵀΣ⁻¹h_k).
    Raises ValueError for a σ² that is not positive.
    """
    eye = torch.eye(H.shape[-2]).to(H)

    def decide(odds, variance):
        least = torch.as_tensor(variance).detach().min()
        if not least.is_cuda and not least > 0:  # on a GPU it would have to be waited for
            raise ValueError(f"variance: got {least:g}, expected a positive number")
        e = torch.tanh(odds / 2)
        v = 1 - e.square()
        Sigma = (H * v.mT) @ H.mT + variance * eye
        U = solve(Sigma, H.expand(*Sigma.shape[:-2], *H.shape[-2:]))  # Σ⁻¹H
        gain = (U * H).sum(-2).unsqueeze(-1)  # h_kᵀ Σ⁻¹ h_k
        free = (1 - v * gain).clamp(min=torch.finfo(x.dtype).eps)  # 0 by rounding, far above 60 dB
        return 2 * (U.mT @ (x - H @ e) + gain * e) / free

    return decide


def box(x, H):
    """The model's own part of projected gradient: θ = μ, s ← clip(s + μHᵀ(x − Hs), −1, 1)."""
    matched, gram = H.mT @ x, H.mT @ H

    def move(s, memory, mu):
        return (s + mu * (matched - gram @ s)).clamp(-1, 1), memory

    return move


# ---- Learned parts -----------------------------------------------------------------------------


def perceptrons(rows, W1, b1, W2, b2, W3, b3):
    """Many small networks at once, sigmoid then ReLU: rows (count, ..., size) ↦ (count, ..., out).

    Weights lead with (...), one network for each, e.g. (receivers, users): W1 (..., wide, size),
    b1 (..., wide, 1) and so on. The rows of a batch are the columns of few large matrix products.
    """
    columns = rows.movedim(0, -1)
    hidden = torch.sigmoid(W1 @ columns + b1)
    return (W3 @ torch.relu(W2 @ hidden + b2) + b3).movedim(-1, 0)


def others(e):
    """For each user the soft symbols of all others, (..., m, m − 1), from e (..., m, 1)."""
    m = e.shape[-2]
    k, other = torch.arange(m, device=e.device)[:, None], torch.arange(m - 1, device=e.device)
    return e[..., 0][..., other + (other >= k)]


def learned_decision(network=perceptrons):
    """DeepSIC's part: a network for each user answers its log-odds from x and the others' e.

    network(rows, *θ) -> (..., m, 1) for rows (..., m, n + m − 1). H is not used; x is (count, ...,
    n, 1), and θ leads with (..., m): so many receivers at once, each with a network for each user.
    """

    def part(x, H):
        def decide(odds, *theta):
            e = others(torch.tanh(odds / 2))
            seen = x.mT.expand(*e.shape[:-1], x.shape[-2])
            return network(torch.cat([seen, e], -1), *theta)

        return decide

    return part


def wide_projection(x, H):
    """DetNet's part: a layer of a network in place of the projection, with a memory v.

    q = s + δ₂ Hᵀx − δ₁ HᵀHs, z = ReLU(W₁[q; v] + b₁), s ← clip((W₂z + b₂)/t), v ← W₃z + b₃;
    θ = (δ₁, δ₂, t, W₁, b₁, W₂, b₂, W₃, b₃). Samuel, Diskin, Wiesel 2019, "Learning to Detect", doi
    10.1109/TSP.2019.2899805, with the soft sign of their "Deep MIMO Detection" 2017, doi
    10.1109/SPAWC.2017.8227772. σ² is not used.
    """
    matched, gram = H.mT @ x, H.mT @ H

    def move(s, memory, delta1, delta2, t, W1, b1, W2, b2, W3, b3):
        v = torch.zeros_like(s[..., :1, :]).expand(*s.shape[:-2], len(W3), 1)
        v = v if memory is None else memory
        q = s + delta2 * matched - delta1 * (gram @ s)
        z = torch.relu(W1 @ torch.cat([q, v], -2) + b1)
        return ((W2 @ z + b2) / t).clamp(-1, 1), W3 @ z + b3

    return move
