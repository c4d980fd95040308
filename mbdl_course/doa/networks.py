"""What is learned: a covariance for the classical chain, a picker of peaks, and a black box."""

import math

import torch
from torch import nn

from mbdl_course.networks import Knowing, seeded

from .algorithm import directions, noise_projector, spectrum
from .parts import lagged, sample_covariance, signal_subspace
from .problem import mean_rmspe, uniform_linear, whole


def through(head):
    """A loss for modules that make covariances: loss(R, doa), the mean RMSPE of head(R, sources).

    head: `esprit`, `root_music` or `music`, all of which carry gradients.
    """
    return lambda R, doa: mean_rmspe(head(R, doa.shape[-1]), doa)


class SubspaceNet(nn.Module):
    """x (..., n, T) ↦ K Kᴴ + εI: a surrogate of the covariance, positive definite by construction.

    K = R/p + network(R_0/p, ..., R_{lags−1}/p), p = tr(R)/n, R_k as in `lagged`: angles do not
    depend on the power. A network that answers zero gives R² up to a factor and a floor: the
    eigenvectors of the sample covariance, so ESPRIT is ESPRIT. The network maps features (...,
    lags, n, n), complex, to (..., n, n). With skip = False K is the network alone, as published.
    Shmuel, Merkofer, Revach, van Sloun, Shlezinger 2023, "SubspaceNet", arXiv 2306.02271.
    """

    def __init__(self, network, lags=1, skip=True, floor=1e-3):
        super().__init__()
        whole("lags", lags)
        if not floor > 0:
            raise ValueError(f"floor: got {floor:g}, expected ε above 0")
        self.network, self.lags, self.skip, self.floor = network, lags, skip, floor

    def forward(self, x):
        R = lagged(x, self.lags)
        R = R / R[..., :1, :, :].diagonal(dim1=-2, dim2=-1).real.mean(-1)[..., None, None]
        K = self.network(R)
        if self.skip:
            K = R[..., 0, :, :] + K
        return K @ K.mH + self.floor * torch.eye(K.shape[-1]).to(K)


class Dense(nn.Module):
    """A fully connected network on complex features (..., lags, n, n), to (..., n, n).

    Its last layer is zero at the start.
    """

    def __init__(self, sensors, lags=1, width=128, depth=2, generator=None):
        super().__init__()
        sizes = [2 * lags * sensors**2, *[width] * depth]
        layers = []
        for size_in, size_out in zip(sizes, sizes[1:], strict=False):
            layers += [seeded(nn.Linear(size_in, size_out), generator), nn.ReLU()]
        self.body = nn.Sequential(*layers, zero(nn.Linear(width, 2 * sensors**2)))

    def forward(self, R):
        n = R.shape[-1]
        out = self.body(torch.view_as_real(R.resolve_conj()).flatten(-4))
        return torch.view_as_complex(out.unflatten(-1, (n, n, 2)))


class AntiRectifier(nn.Module):
    """v ↦ [relu(v), relu(−v)] along the channels: no sign is lost."""

    def forward(self, v):
        return torch.cat([v.relu(), (-v).relu()], -3)


class LeakyReLU(nn.Module):
    """v ↦ max(v, v/10): SubspaceNet's smaller relative uses it."""

    def forward(self, v):
        return nn.functional.leaky_relu(v, 0.1)


class EncoderDecoder(nn.Module):
    """The published networks: 2 × 2 convolutions of an image of 2n × n, as many transposed ones.

    Real and imaginary parts stand one above the other, a lag is a channel. `channels` are those of
    the encoder's layers, (16, 32, 64); the activation doubles them (`AntiRectifier`, factor 2) or
    does not (`LeakyReLU`, factor 1: Deep Root-MUSIC).
    """

    def __init__(self, lags=8, channels=(16, 32, 64), activation=None, factor=2, generator=None):
        super().__init__()
        activation = activation or AntiRectifier()
        layers, last = [], lags
        for size in channels:
            layers += [seeded(nn.Conv2d(last, size, 2), generator), activation]
            last = factor * size
        for size in (*channels[-2::-1], 1):
            layers += [seeded(nn.ConvTranspose2d(last, size, 2), generator), activation]
            last = factor * size
        self.body = nn.Sequential(*layers[:-1])

    def forward(self, R):
        out = self.body(torch.cat([R.real, R.imag], -2)).squeeze(-3)
        return torch.complex(*out.chunk(2, -2))


class DeepAugmentedMUSIC(Knowing):
    """x (..., n, T) ↦ doa: a recurrent network makes the covariance from the snapshots, MUSIC's
    spectrum follows, and a second network reads the angles from it, for so many sources.

    Merkofer, Revach, Shlezinger, van Sloun 2022, "Deep augmented MUSIC algorithm for data-driven
    DoA estimation", arXiv 2109.10581. What differs: K Kᴴ + εI is Hermitian, and the noise subspace
    is that of its least eigenvalues (the published code takes eigenvectors of a general matrix in
    no order); snapshots are scaled to power 1 instead of by batch normalisation, and the spectrum
    is read in logarithms.
    """

    def __init__(self, sensors, sources, points=121, width=None, generator=None):
        super().__init__()
        self.sources, width = sources, width or 2 * sensors
        self.gru = nn.GRU(2 * sensors, width)
        for weight in self.gru.parameters():
            nn.init.uniform_(weight, -(width**-0.5), width**-0.5, generator=generator)
        self.answer = seeded(nn.Linear(width, 2 * sensors**2), generator)
        self.array = uniform_linear(sensors, dtype=torch.float32)
        self.grid = directions(self.array, points)
        sizes = [points, *[2 * width] * 3]
        layers = []
        for size_in, size_out in zip(sizes, sizes[1:], strict=False):
            layers += [seeded(nn.Linear(size_in, size_out), generator), nn.ReLU()]
        self.pick = nn.Sequential(*layers, seeded(nn.Linear(sizes[-1], sources), generator))

    def forward(self, x):
        n, batch = x.shape[-2], x.shape[:-2]
        x = x / x.abs().square().mean((-2, -1), keepdim=True).sqrt()
        snapshots = torch.cat([x.real, x.imag], -2).reshape(-1, 2 * n, x.shape[-1])
        _, memory = self.gru(snapshots.permute(2, 0, 1))
        K = torch.view_as_complex(self.answer(memory[0]).unflatten(-1, (n, n, 2)).contiguous())
        R = K @ K.mH + 1e-3 * torch.eye(n).to(K)
        f = spectrum(noise_projector(signal_subspace(R, self.sources)), self.array, self.grid)
        doa = self.pick((n / (f + 1e-2 * n)).log())
        return doa.unflatten(0, batch) if batch else doa[0]


class CovarianceCNN(nn.Module):
    """x (..., n, T) ↦ doa: a black box. Convolutions of the sample covariance, then dense layers;
    it is told nothing of waves, and only ever answers for so many sources."""

    def __init__(self, sensors, sources, channels=32, width=128, generator=None):
        super().__init__()
        a = [seeded(nn.Conv2d(2, channels, 3, padding=1), generator), nn.ReLU(),
             seeded(nn.Conv2d(channels, channels, 3, padding=1), generator), nn.ReLU(),
             seeded(nn.Conv2d(channels, 4, 3, padding=1), generator), nn.ReLU(),
             nn.Flatten(-3)]  # fmt: skip
        self.body = nn.Sequential(
            *a, seeded(nn.Linear(4 * sensors**2, width), generator), nn.ReLU(),
            seeded(nn.Linear(width, width), generator), nn.ReLU(),
            seeded(nn.Linear(width, sources), generator),
        )  # fmt: skip

    def forward(self, x):
        R = sample_covariance(x)
        R = R / R.diagonal(dim1=-2, dim2=-1).real.mean(-1)[..., None, None]
        batch = R.shape[:-2]
        image = torch.stack([R.real, R.imag], -3).reshape(-1, 2, *R.shape[-2:])
        return math.pi / 2 * self.body(image).reshape(*batch, -1).tanh()


def zero(layer):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
