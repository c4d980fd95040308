"""What fills the slot of the step: the model's own part, and learned convolutions."""

import torch

from .problem import casorati, frames_of

# ---- Model-based parts -----------------------------------------------------------------------


def lipschitz(H):
    """L = ‖[H1 H2]‖²: the step is safe for 0 < μ < 2/L, usually μ = 1/L; without H it is 2."""
    given = next((h for h in H or () if h is not None), torch.ones(1, 1))
    eye = torch.eye(len(given), dtype=given.dtype, device=given.device)
    grams = (eye if h is None else h @ h.mH for h in H or (None, None))
    return torch.linalg.eigvalsh(sum(grams))[-1]


def gradient(x, H):
    """The model's own part: θ = (μ, ρ_S, ρ_L) ↦ (S + μH2ᴴR, μρ_S, L + μH1ᴴR, μρ_L)."""
    H1, H2 = H

    def move(S, L, mu, rho_S, rho_L):
        on_gpu = isinstance(mu, torch.Tensor) and mu.is_cuda  # there a comparison has to wait
        if not on_gpu and not mu > 0:
            raise ValueError(f"mu: got {float(mu):g}, expected a positive number")
        residual = mu * (x - H1 @ L - H2 @ S)
        return S + H2.mH @ residual, mu * rho_S, L + H1.mH @ residual, mu * rho_L

    return move


# ---- Learned parts ---------------------------------------------------------------------------


def convolved(kernels, movies, height):
    """Sums over j of kernels[i, j] * movies[j], for each i: convolutions frame by frame.

    kernels (out, in, 2, k, k) with real and imaginary part, or (out, in, 1, k, k); movies a list of
    `in` Casorati matrices (..., pixels, frames). k is odd and the borders are periodic.
    (a + ib)(c + id) = (ac − bd) + i(ad + bc): a minus in the real part.
    """
    x = torch.stack([frames_of(X, height) for X in movies], -3)  # (..., frames, in, height, width)
    batch, k = x.shape[:-3], kernels.shape[-1]
    weight = kernels.flip(-1, -2)  # torch's conv2d correlates
    if x.is_complex():
        re, im = weight[:, :, 0], weight[:, :, -1]
        weight = torch.cat([torch.cat([re, -im], 1), torch.cat([im, re], 1)])
        x = torch.cat([x.real, x.imag], -3)
    else:
        weight = weight[:, :, 0]
    x = torch.nn.functional.pad(x.flatten(0, -4), (k // 2,) * 4, mode="circular")
    y = torch.nn.functional.conv2d(x, weight).unflatten(0, batch)
    if movies[0].is_complex():
        y = torch.complex(*y.chunk(2, -3))
    return [casorati(part) for part in y.unbind(-3)]


PAD = "circular"


def convolutions(height):
    """CORONA's part for pictures of this height: six convolutions; θ = (P, β_S, β_L).

    P (2, 3, ..., k, k): what makes V_S and V_L out of x, S and L; (17)-(18) in Monga, Li, Eldar.
    H is not used, it is in the kernels.
    """

    def part(x, H):
        def move(S, L, P, beta_S, beta_L):
            V_S, V_L = convolved(P, [x, S, L], height)
            return V_S, beta_S, V_L, beta_L

        return move

    return part
