"""The problem: X = H1 L + H2 S + W, movies of ultrasound and of a photograph, the objective."""

import math
from typing import NamedTuple

import torch

from mbdl_course.evaluate import nmse_db

PIXEL, PSF, WAVELENGTH = 0.12, (0.14, 0.32), 0.30  # mm: pixel; std in depth and across; carrier


class Parts(NamedTuple):
    """The two parts of a movie, each (..., pixels, frames): sparse S, what is wanted; low-rank L.

    A movie of height x width pixels is a Casorati matrix: a row for each pixel, a column for each
    frame, the pixels of a frame row by row.
    """

    S: torch.Tensor
    L: torch.Tensor


def casorati(movie):
    """(..., frames, height, width) as (..., pixels, frames)."""
    return movie.flatten(-2).mT


def frames_of(X, height):
    """(..., pixels, frames) as (..., frames, height, width); the inverse of `casorati`."""
    return X.mT.unflatten(-1, (height, -1))


def ultrasound(count, generator, size=16, frames=12, density=110.0, speed=0.8, motion=0.1,
               dtype=torch.complex64):  # fmt: skip
    """Contrast-enhanced ultrasound: Parts of tissue L and micro-bubbles S, size x size pixels.

    The tissue is a field of random scatterers through the point-spread function, of power 1, that
    moves as a whole by a random drift and a sine of up to `motion` pixels: low rank, for it moves
    little. The bubbles, `density` to the cm² (at least one), have amplitude 1, random phases, and
    each its own velocity, of about `speed` pixels a frame; S is what the transducer sees of them,
    H2 = I. A pixel is 0.12 mm, the Gaussian point-spread function has standard deviations of
    0.14 mm (depth) and 0.32 mm (across), and an echo from the depth z has the phase 4πz/wavelength.
    After the description of the simulation in Solomon et al. 2020, doi 10.1109/TMI.2019.2941271.
    """
    time = torch.arange(frames, dtype=torch.float64) - (frames - 1) / 2
    wave = 4 * math.pi * PIXEL / WAVELENGTH  # phase of a pixel of depth
    spread = [std / PIXEL for std in PSF]

    def uniform(*shape):
        return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1

    def echoes(phase):
        return torch.polar(torch.ones_like(phase), phase)

    grid = size + 8  # the tissue goes on beyond the picture
    omega = 2 * math.pi * torch.fft.fftfreq(grid, dtype=torch.float64)
    low_pass = torch.exp(-((spread[0] * omega[:, None]) ** 2 + (spread[1] * omega) ** 2) / 2)
    field = torch.randn(count, 1, grid, grid, 2, generator=generator, dtype=torch.float64)
    field = torch.view_as_complex(field) * low_pass / low_pass.square().mean().sqrt() / 2**0.5
    beat = (0.5 * time * (1 + 0.5 * uniform(count, 1)) + math.pi * uniform(count, 1)).sin()
    moved = motion * (uniform(count, 2, 1) * beat[:, None] + uniform(count, 2, 1) * time / frames)
    ramp = moved[:, 0, :, None, None] * omega[:, None] + moved[:, 1, :, None, None] * omega
    tissue = torch.fft.ifft2(field * echoes(-ramp), norm="ortho")[..., :size, :size]
    tissue = tissue * echoes(wave * moved[:, 0])[..., None, None]

    bubbles = max(1, round(density * (size * PIXEL / 10) ** 2))
    start, course = size / 2 * (1 + uniform(2, count, 1, bubbles)), uniform(count, 1, bubbles)
    course = torch.stack([(math.pi * course).sin(), (math.pi * course).cos()])
    pace = speed * (1 + 0.5 * uniform(count, 1, bubbles))
    place = start + pace * course * time[:, None]  # (depth or across, count, frames, bubbles)
    pixels = torch.arange(size, dtype=torch.float64) + 0.5
    bumps = [torch.exp(-(((pixels - p[..., None]) / std) ** 2) / 2)
             for p, std in zip(place, spread, strict=True)]  # fmt: skip
    phase = echoes(wave * place[0] + math.pi * uniform(count, 1, bubbles))
    S = torch.einsum("ctb,ctbh,ctbw->cthw", phase, *(bump.to(phase.dtype) for bump in bumps))
    return Parts(casorati(S).to(dtype), casorati(tissue).to(dtype))


def street(count, photo, generator, size=16, frames=12, drift=0.2, speed=1.0, objects=2,
           dtype=torch.float32):  # fmt: skip
    """A real background that moves slowly, and discs that pass before it: Parts of real movies.

    L is a crop of the photograph (rows, columns) in [0, 1], at a random place, that drifts by up to
    `drift` pixels a frame (bilinear interpolation). The discs have random grey values and hide
    what is behind them, so S = M (F − L) with their mask M and grey F: the sum L + S is exact.
    ValueError where the photograph is too small for a crop.
    """
    margin = math.ceil(drift * frames / 2) + 1
    rows, columns = photo.shape
    if min(rows, columns) < size + 2 * margin:
        raise ValueError(
            f"photo: got {rows} x {columns}, expected at least {size + 2 * margin} pixels each way"
        )
    time = torch.arange(frames, dtype=torch.float64) - (frames - 1) / 2

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    room = torch.tensor([rows, columns], dtype=torch.float64) - size - 2 * margin
    corner = margin + room * uniform(count, 2)
    place = corner[:, None] + drift * (2 * uniform(count, 1, 2) - 1) * time[:, None]
    pixels = torch.arange(size, dtype=torch.float64)
    down, across = (place[..., i, None] + pixels for i in (0, 1))  # (count, frames, size)
    scale = 2 / torch.tensor([columns - 1, rows - 1], dtype=torch.float64)
    grid = torch.stack(torch.broadcast_tensors(across[..., None, :], down[..., None]), -1)
    grid = (grid * scale - 1).reshape(1, count * frames, size * size, 2)
    L = torch.nn.functional.grid_sample(photo[None, None].double(), grid, align_corners=True)
    L = L.reshape(count, frames, size, size)

    scene = L
    for _ in range(objects):
        path = size * uniform(count, 1, 2) + speed * (2 * uniform(count, 1, 2) - 1) * time[:, None]
        radius, grey = 1.2 + uniform(count, 1, 1, 1), uniform(count, 1, 1, 1)
        far = (pixels[:, None] - path[..., 0, None, None]).square()
        far = (far + (pixels - path[..., 1, None, None]).square()).sqrt()
        mask = (radius + 0.5 - far).clamp(0, 1)
        scene = scene + mask * (grey - scene)
    return Parts(casorati(scene - L).to(dtype), casorati(L).to(dtype))


def observed(parts, noise, clutter_db=0.0, snr_db=math.inf, H=None):
    """(X, Parts(S, c L)): X = H1 c L + H2 S + W, with c and W = `noise` scaled to the two levels.

    clutter_db: power of the tissue above that of the centre of a bubble, whose amplitude is 1:
    c² = 10^(clutter_db/10) for L of power 1. snr_db: the centre of a bubble above the noise's power
    per entry, for noise (complex: real and imaginary part together) of power 1. So both mean the
    same for every movie, however many bubbles there are in it.
    """
    H1, H2 = operators(H)
    L = parts.L * 10 ** (clutter_db / 20)
    return H1 @ L + H2 @ parts.S + noise * 10 ** (-snr_db / 20), Parts(parts.S, L)


def white(count, generator, size=16, frames=12, dtype=torch.complex64):
    """Noise of power 1 in each entry, (count, pixels, frames), real or complex."""
    return torch.randn(count, size**2, frames, generator=generator, dtype=dtype)


def robust_pca(parts, x, H, rho_S, rho_L):
    """½‖X − H1 L − H2 S‖² + ρ_L‖L‖_* + ρ_S‖S‖₁,₂ per movie, shape (...); (16) in Monga, Li, Eldar.

    (10) in Shlezinger et al. has +H2 S inside the norm, a slip, and no ½.
    """
    H1, H2 = operators(H)
    residual = x - H1 @ parts.L - H2 @ parts.S
    rows = torch.linalg.vector_norm(parts.S, dim=-1).sum(-1)
    nuclear = torch.linalg.svdvals(parts.L).sum(-1)
    return residual.abs().square().sum((-2, -1)) / 2 + rho_S * rows + rho_L * nuclear


def projection_db(X, height, floor=1e-3):
    """The maximum-intensity projection 20 log10 max_t |X_t| of movies, (..., height, width).

    In dB below the largest value of the picture, no less than `floor` of it.
    """
    picture = frames_of(X, height).abs().amax(-3)
    top = picture.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(picture.dtype).tiny)
    return 20 * (picture / top).clamp(min=floor).log10()


def separation_db(S_hat, S):
    """The NMSE in dB, a ratio of sums over all movies, of one part: see `evaluate.nmse_db`."""
    return nmse_db(*(part.flatten(-2)[..., None] for part in (S_hat, S)))


# ---- Checks ------------------------------------------------------------------------------------


class Identity:
    """H s = s."""

    @property
    def mH(self):
        return self

    def __matmul__(self, s):
        return s


def operators(H):
    """The pair (H1, H2), the identity where H is None or one of the pair is."""
    H1, H2 = H or (None, None)
    return tuple(Identity() if h is None else h for h in (H1, H2))


def checked(x, H):
    """The pair (H1, H2), once x and H are known to fit; an error names what does not."""
    if not isinstance(x, torch.Tensor) or not (x.is_floating_point() or x.is_complex()):
        came = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
        raise TypeError(f"x: got {came}, expected a tensor of real or complex floats")
    if x.ndim < 2:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected movies (..., pixels, frames)")
    if H is not None and (not isinstance(H, tuple) or len(H) != 2):
        raise TypeError(f"H: got {type(H).__name__}, expected None or a pair (H1, H2)")
    for name, h in zip(("H1", "H2"), H or (), strict=False):
        if h is None:
            continue
        if h.ndim != 2 or h.shape[0] != x.shape[-2]:
            raise ValueError(
                f"{name}: got shape {tuple(h.shape)}, expected ({x.shape[-2]}, pixels) to fit x "
                f"{tuple(x.shape)}"
            )
        if h.dtype != x.dtype or h.device != x.device:
            came, expected = (f"{v.dtype} on {v.device}" for v in (h, x))
            raise TypeError(f"{name}: got {came}, expected what x has, {expected}")
    if not x.isfinite().all():
        raise ValueError("x: got NaN or Inf, expected finite observations")
    return operators(H)


def begin(x, H, start):
    """The initial Parts: zero, or the given ones once they fit."""
    zeros = Parts(*(h.mH @ torch.zeros_like(x) for h in reversed(operators(H))))
    if start is None:
        return zeros
    for name, given, zero in zip(Parts._fields, start, zeros, strict=True):
        if given.shape[-2:] != zero.shape[-2:]:
            raise ValueError(
                f"start.{name}: got shape {tuple(given.shape)}, expected {tuple(zero.shape)}"
            )
    return Parts(*start)
