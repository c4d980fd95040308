"""Networks: the algorithm with a learned part, filled with the model's, and a black box."""

import torch
from torch import nn

from mbdl_course.fold import last
from mbdl_course.networks import seeded
from mbdl_course.unfold import Thetas, Unfolded

from .algorithm import ista
from .parts import convolutions
from .problem import casorati, frames_of


def CORONA(theta, depth=None, height=16, width=5, psf=None, dtype=torch.complex64):
    """ISTA unfolded into layers of six learned convolutions and two thresholds, filled as ISTA.

    theta = (μ, ρ_S, ρ_L) for all `depth` layers, or a list of one for each; width: of the kernels,
    or a list of one for each layer; psf: a kernel h (k, k) if H2 is the periodic convolution with
    it, H2 = I otherwise. 6 · 2 width² + 2 parameters a layer for complex movies, half the kernels'
    for real ones. (12) in Shlezinger et al. 2023, whose (12b) swaps P4 and P6; (17)-(18) in Monga,
    Li, Eldar 2021; Solomon et al. 2020. ValueError for a width too small for the model's filling.
    """
    theta = theta if isinstance(theta, list) else [theta] * depth
    widths = width if isinstance(width, list) else [width] * len(theta)
    layers = [
        (filled(mu, w, psf, dtype), mu * rho_S, mu * rho_L)
        for (mu, rho_S, rho_L), w in zip(theta, widths, strict=True)
    ]
    real = torch.empty(0, dtype=dtype).real.dtype
    return Unfolded(ista, Thetas(layers, dtype=real), part=convolutions(height))


def filled(mu, width, psf, dtype):
    """The kernels (2, 3, 1 or 2, width, width) with which `convolutions` is `gradient`."""
    one = torch.ones(1, 1, dtype=dtype)
    h = one if psf is None else psf.to(dtype)
    back = h.conj().flip(-1, -2)  # H2ᴴ
    k = h.shape[-1]
    both = nn.functional.conv2d(  # h * hᴴ by correlation with h conjugated: Σ h(u + d) h(u)*
        nn.functional.pad(h, (k - 1,) * 4)[None, None], h.conj()[None, None]
    )[0, 0]
    largest = both.shape[-1]
    if width % 2 == 0 or width < largest:
        raise ValueError(f"width: got {width}, expected an odd number of at least {largest}")

    def at(kernel):
        return nn.functional.pad(kernel, ((width - kernel.shape[-1]) // 2,) * 4)

    rows = [
        [mu * at(back), at(one) - mu * at(both), -mu * at(back)],  # V_S from x, S, L
        [mu * at(one), -mu * at(h), (1 - mu) * at(one)],  # V_L
    ]
    P = torch.stack([torch.stack(row) for row in rows])
    return torch.stack([P.real, P.imag], 2) if dtype.is_complex else P[:, :, None]


class Both(nn.Module):
    """x ↦ S and L stacked, (..., 2, pixels, frames): what (13), the loss on both parts, needs."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return torch.stack(last(self.network.states(x))[:2], -3)


# ---- Black box ---------------------------------------------------------------------------------


class MovieCNN(nn.Module):
    """x ↦ Ŝ = x + CNN(x): plain convolutions over the picture, all frames at once as channels.

    `depth` layers of odd `width` with `channels` between; it knows neither rank nor sparsity.
    """

    def __init__(self, frames, height, channels=32, width=3, depth=4, dtype=torch.complex64,
                 generator=None):  # fmt: skip
        super().__init__()
        self.height = height
        ends = frames * (2 if dtype.is_complex else 1)
        sizes = [ends, *[channels] * (depth - 1), ends]
        layers = []
        for size_in, size_out in zip(sizes, sizes[1:], strict=False):
            conv = nn.Conv2d(size_in, size_out, width, padding=width // 2)
            layers += [seeded(conv, generator), nn.ReLU()]
        self.network = nn.Sequential(*layers[:-1])

    def forward(self, x):
        movie = frames_of(x, self.height)
        flat = torch.cat([movie.real, movie.imag], -3) if x.is_complex() else movie
        y = self.network(flat.reshape(-1, *flat.shape[-3:])).reshape(flat.shape)
        return x + casorati(torch.complex(*y.chunk(2, -3)) if x.is_complex() else y)
