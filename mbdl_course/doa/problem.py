"""The problem: an array, plane waves that reach it, the score of estimated angles, and bounds.

Angles are sets, not vectors: `doa` is (..., sources), in radians from broadside, ascending.
"""

import math
from itertools import accumulate
from typing import NamedTuple

import torch

from mbdl_course.operators import solve

# ---- The array ---------------------------------------------------------------------------------


class Array(NamedTuple):
    """Where the sensors are and how they answer.

    positions (..., n, 2): along the line and ahead of it, in wavelengths; gains (..., n, 1),
    complex. Leading dimensions are scenes that each have an array of their own.
    """

    positions: torch.Tensor
    gains: torch.Tensor


def uniform_linear(sensors, spacing=0.5, dtype=torch.float64):
    """The Array of so many equal sensors on a line, `spacing` wavelengths apart, from the origin.

    Beyond half a wavelength two directions give the same response (grating lobes).
    """
    whole("sensors", sensors)
    if not spacing > 0:
        raise ValueError(f"spacing: got {spacing:g}, expected wavelengths, above 0")
    positions = torch.zeros(sensors, 2, dtype=dtype)
    positions[:, 0] = spacing * torch.arange(sensors, dtype=dtype)
    return Array(positions, torch.ones(sensors, 1, dtype=dtype.to_complex()))


def disturbed(array, noise, position=0.0, gain_db=0.0, phase=0.0):
    """The Array with errors of its own for each sensor: standard deviations times `noise`.

    noise (..., n, 4), standard normal: along, ahead, gain, phase. position in wavelengths, gain_db
    in dB, phase in radians. The same noise at other settings is the same draw, scaled.
    """
    n = array.positions.shape[-2]
    if noise.shape[-2:] != (n, 4):
        raise ValueError(f"noise: got shape {tuple(noise.shape)}, expected (..., {n}, 4)")
    size, turn = 10 ** (gain_db * noise[..., 2:3] / 20), phase * noise[..., 3:]
    gains = array.gains * torch.polar(size, turn)
    return Array(array.positions + position * noise[..., :2], gains)


def subarray(array, size):
    """The first `size` sensors: the array that a smoothed covariance belongs to."""
    return Array(array.positions[..., :size, :], array.gains[..., :size, :])


def steering(doa, array):
    """H (..., n, sources), complex: the array's responses to plane waves from doa (..., sources).

    h_k(φ) = g_k exp(−2πj (p_k sin φ + q_k cos φ)) for a sensor p_k wavelengths along the line and
    q_k ahead. Raises TypeError or ValueError unless the angles are finite radians in range.
    """
    return response(checked_doa(doa, array), array)


def response(doa, array):
    along, ahead = array.positions.to(doa).split(1, -1)
    phase = -2 * math.pi * (along * doa.sin()[..., None, :] + ahead * doa.cos()[..., None, :])
    wave = torch.polar(torch.ones_like(phase), phase)
    return array.gains.to(wave) * wave


def expansion(doa, array):
    """H, dH/dφ and d²H/dφ², column by column, each (..., n, sources)."""
    along, ahead = array.positions.to(doa).split(1, -1)
    sin, cos = doa.sin()[..., None, :], doa.cos()[..., None, :]
    H = response(doa, array)
    once = -2j * math.pi * (along * cos - ahead * sin)
    twice = 2j * math.pi * (along * sin + ahead * cos)
    return H, once * H, (twice + once * once) * H


def on_a_line(array):
    """Whether the sensors lie on the line, so that front and back look the same."""
    return bool((array.positions[..., 1] == 0).all())


def principal(doa, array):
    """The same directions in [−π/2, π/2] for sensors on a line, else in [−π, π)."""
    doa = (doa + math.pi).remainder(2 * math.pi) - math.pi
    if not on_a_line(array):
        return doa
    return torch.where(doa.abs() > math.pi / 2, doa.sign() * math.pi - doa, doa)


# ---- Scenes ------------------------------------------------------------------------------------


class Scenes(NamedTuple):
    """Directions (count, sources) and standard draws, complex, of power 1: the waveforms (count,
    sources, snapshots) and the sensors' noise (count, n, snapshots)."""

    doa: torch.Tensor
    waveforms: torch.Tensor
    noise: torch.Tensor


def scenes(count, sources, array, snapshots, generator, separation=math.pi / 12,
           widest=math.pi / 2):  # fmt: skip
    """Independent Scenes of an array: directions uniform in (−widest, widest), radians, given that
    neighbours are at least `separation` apart.

    ValueError for counts that are not whole and positive, or where so many do not fit.
    """
    for name, value in (("count", count), ("sources", sources), ("snapshots", snapshots)):
        whole(name, value)
    room = 2 * widest - (sources - 1) * separation
    if not 0 < widest <= math.pi or not separation >= 0 or not room > 0:
        raise ValueError(
            f"separation, widest: got {separation:g}, {widest:g}; {sources} sources so far apart "
            "do not fit into (−widest, widest)"
        )
    kind, n = {"generator": generator, "dtype": array.positions.dtype}, array.gains.shape[-2]
    # sorted uniform draws on what the gaps leave, and the gaps put back between them
    free = torch.rand(count, sources, **kind).sort(-1).values * room
    doa = free - widest + separation * torch.arange(sources, dtype=free.dtype)
    kind["dtype"] = array.gains.dtype
    waveforms = torch.randn(count, sources, snapshots, **kind)
    return Scenes(doa, waveforms, torch.randn(count, n, snapshots, **kind))


def coloured(waveforms, pole):
    """The waveforms through a first-order recursion s_t = a s_{t−1} + sqrt(1 − |a|²) z_t.

    Their power stays 1, neighbouring snapshots have the correlation a, |a| < 1.
    """
    if not abs(pole) < 1:
        raise ValueError(f"pole: got {pole}, expected a number of modulus below 1")
    first, *rest = waveforms.unbind(-1)
    fresh = (1 - abs(pole) ** 2) ** 0.5
    return torch.stack([*accumulate(rest, lambda s, z: pole * s + fresh * z, initial=first)], -1)


def mixing(sources, snr_db, coherence=0.0, dtype=torch.complex128):
    """G (sources, sources), real or complex, with G Gᴴ = P, the covariance of the sources.

    P_ij = sqrt(snr_i snr_j) (c + (1 − c) δ_ij): snr_db = 10 log10 of each source's power at one
    sensor over the noise's power there, one number or one for each; coherence c in [0, 1]: c = 1 is
    one waveform from all directions. ValueError outside.
    """
    if not 0 <= coherence <= 1:
        raise ValueError(f"coherence: got {coherence:g}, expected 0 to 1")
    amplitude = 10 ** (torch.as_tensor(snr_db, dtype=torch.float64) / 20)
    if amplitude.ndim > 1 or amplitude.numel() not in (1, sources) or amplitude.isnan().any():
        raise ValueError(f"snr_db: got {snr_db}, expected a number or {sources} of them")
    own, shared = (1 - coherence) ** 0.5, (1 - coherence + coherence * sources) ** 0.5
    root = torch.full((sources, sources), (shared - own) / sources, dtype=torch.float64)
    root += own * torch.eye(sources, dtype=torch.float64)
    return (amplitude.expand(sources)[:, None] * root).to(dtype)


def observed(scenes, array, snr_db, coherence=0.0, phases=None):
    """Snapshots x = H G s + w, (count, n, snapshots), one column each; the noise has power 1.

    snr_db and coherence as in `mixing`; snr_db counts power, so 10 is an amplitude of 3.16. phases
    (count, sources), radians: each path turns what it carries by its own, none unless given.
    """
    H, S = steering(scenes.doa, array), scenes.waveforms
    if phases is not None:
        H = H * torch.polar(torch.ones_like(phases), phases).unsqueeze(-2)
    G = mixing(S.shape[-2], snr_db, coherence, S.dtype).to(S.device)
    return H.to(S.dtype) @ (G @ S) + scenes.noise


def narrowband(signals, rate, frequency, size=256, hop=64):
    """Snapshots (n, T) of a recording (n, time) around a frequency, and that bin's own frequency.

    Each is one bin of a Fourier transform of `size` samples under a Hann window, `hop` apart, so
    neighbours overlap. A wave is narrow for the array if it crosses it in much less than `size`
    samples; spacing in wavelengths is metres · frequency / (speed of sound). ValueError for a bin
    outside (0, rate/2), or for fewer samples than `size`.
    """
    for name, value in (("size", size), ("hop", hop)):
        whole(name, value)
    if signals.ndim != 2 or signals.shape[-1] < size or not signals.isfinite().all():
        raise ValueError(
            f"signals: got shape {tuple(signals.shape)}, expected finite (n, time), {size} or more"
        )
    bin = round(frequency * size / rate) if math.isfinite(frequency) else 0
    if not 0 < bin < size / 2:
        raise ValueError(
            f"frequency: got {frequency:g}, expected between {rate / size:g} and {rate / 2:g}"
        )
    kind = {"window": torch.hann_window(size).to(signals), "return_complex": True, "center": False}
    return torch.stft(signals, size, hop, **kind)[:, bin], bin * rate / size


# ---- Scores ------------------------------------------------------------------------------------


def doa_error(doa_hat, doa, period=math.pi):
    """ŝ − s of each source under the best assignment of estimates to sources, (..., sources).

    Differences count modulo `period`. π is the published convention: −90° and 90° are one
    direction, as they are to a line at half a wavelength. 2π is for plane arrays, math.inf for
    plain differences. On a circle the best assignment pairs the sorted angles and turns one set
    round, so `sources` assignments are tried, not all. ValueError for other shapes, NaN or Inf.
    """
    if doa_hat.shape[-1:] != doa.shape[-1:] or not doa.shape[-1:].numel():
        raise ValueError(
            f"doa_hat: got shape {tuple(doa_hat.shape)}, expected that of doa, {tuple(doa.shape)}"
        )
    for name, value in (("doa_hat", doa_hat), ("doa", doa)):
        if not value.isfinite().all():
            raise ValueError(f"{name}: got NaN or Inf, expected finite radians")
    m, circle = doa.shape[-1], math.isfinite(period)
    rank = (doa.remainder(period) if circle else doa).argsort(-1)
    doa_hat = (doa_hat.remainder(period) if circle else doa_hat).sort(-1).values
    turns = range(m) if circle else (0,)
    error = torch.stack([doa_hat.roll(k, -1) - doa.gather(-1, rank) for k in turns], -2)
    if circle:
        error = error - period * (error / period).detach().round()
    best = error.detach().square().sum(-1).argmin(-1)[..., None, None]
    error = error.gather(-2, best.expand(*best.shape[:-1], m)).squeeze(-2)
    return error.gather(-1, rank.argsort(-1))


def rmspe(doa_hat, doa, period=math.pi):
    """The root mean square of `doa_error` over the sources of a scene, (...), in radians.

    With the period π this is the error of Shmuel, Merkofer, Revach, van Sloun, Shlezinger 2023,
    "SubspaceNet", arXiv 2306.02271. At zero its gradient is 0.
    """
    error = doa_error(doa_hat, doa, period)
    return torch.linalg.vector_norm(error, dim=-1) / error.shape[-1] ** 0.5


def mean_rmspe(doa_hat, doa):
    """The mean of `rmspe` over the scenes: what is reported, and the loss of what is trained."""
    return rmspe(doa_hat, doa).mean()


# ---- Bounds ------------------------------------------------------------------------------------


def stochastic_bound(doa, P, snapshots, array):
    """The Cramér-Rao bound on the covariance of unbiased estimates of doa, (..., m, m), in rad²:
    Gaussian sources of unknown covariance P (..., m, m), white noise of unknown power, here 1.

    (1/2T) [Re(DᴴΠD ∘ (P Hᴴ R⁻¹ H P)ᵀ)]⁻¹, D = dH/dφ, Π = I − H(HᴴH)⁻¹Hᴴ, R = HPHᴴ + I.
    Stoica, Nehorai 1990, "Performance study of conditional and unconditional direction-of-arrival
    estimation", doi 10.1109/29.60109. ValueError for no fewer sources than sensors.
    """
    H = bounded(doa, array, P.shape[-1])
    P = P.to(H.dtype)
    R = H @ P @ H.mH + torch.eye(H.shape[-2]).to(H)
    return bound(doa, P @ H.mH @ torch.linalg.solve(R, H @ P), snapshots, array)


def deterministic_bound(doa, signals, array):
    """The same for signals (..., m, T), each complex value of them an unknown of its own:
    (1/2T) [Re(DᴴΠD ∘ P̂ᵀ)]⁻¹ with P̂ = S Sᴴ/T.

    S is what arrives, `mixing` @ waveforms. Stoica, Nehorai 1989, "MUSIC, maximum likelihood, and
    Cramer-Rao bound", doi 10.1109/29.17564. ValueError for no fewer sources than sensors.
    """
    bounded(doa, array, signals.shape[-2])
    return bound(doa, signals @ signals.mH / signals.shape[-1], signals.shape[-1], array)


def bounded(doa, array, sources):
    n, m = array.positions.shape[-2], doa.shape[-1]
    if not m < n or sources != m:
        raise ValueError(f"doa: got {m} angles and {sources} signals, expected as many and < {n}")
    return steering(doa, array)


def bound(doa, P, snapshots, array):
    whole("snapshots", snapshots)
    information = 2 * snapshots * curvature(doa, P, array)
    return torch.linalg.solve(information, torch.eye(doa.shape[-1]).to(information))


def curvature(doa, P, array):
    """Re(DᴴΠD ∘ Pᵀ), (..., m, m): what a snapshot tells of the angles, halved."""
    H, D, _ = expansion(doa, array)
    return ((D.mH @ (D - projected(H, D))) * P.mT).real


def projected(H, v):
    """H (HᴴH)⁻¹ Hᴴ v, the projection onto the columns of H."""
    return H @ against(H, v)


def against(H, v):
    """(HᴴH)⁻¹ Hᴴ v, with a rounding error added to HᴴH where columns may be equal."""
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    return solve(H.mH @ H + 100 * torch.finfo(H.dtype).eps * eye, H.mH @ v)


# ---- Checks ------------------------------------------------------------------------------------


def whole(name, value):
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: got {value!r}, expected a whole number, 1 or more")


def checked_doa(doa, array):
    """doa, once it is finite radians that the array can mean."""
    if not isinstance(doa, torch.Tensor) or not doa.is_floating_point():
        came = doa.dtype if isinstance(doa, torch.Tensor) else type(doa).__name__
        raise TypeError(f"doa: got {came}, expected a tensor of real floats, radians")
    most = math.pi / 2 if on_a_line(array) else math.pi
    if doa.numel() and not doa.detach().abs().max() <= most + 1e-6:  # NaN is not <= either
        raise ValueError(
            f"doa: got angles up to {doa.detach().abs().max():.4g}, expected finite radians in "
            f"[−{most:.4g}, {most:.4g}]"
        )
    return doa


def checked_covariance(R, sources=None):
    """Raise the error that names what is wrong with R, or with so many sources in it."""
    if not isinstance(R, torch.Tensor) or not R.is_complex():
        came = R.dtype if isinstance(R, torch.Tensor) else type(R).__name__
        raise TypeError(f"R: got {came}, expected a complex covariance matrix")
    if R.ndim < 2 or R.shape[-1] != R.shape[-2]:
        raise ValueError(f"R: got shape {tuple(R.shape)}, expected square matrices (..., n, n)")
    A = R.detach()
    scale = torch.view_as_real(A.resolve_conj()).abs().max()
    if not scale.isfinite():
        raise ValueError("R: got NaN or Inf, expected a finite covariance matrix")
    if torch.view_as_real(A - A.mH).abs().max() > 1000 * torch.finfo(A.dtype).eps * scale:
        raise ValueError("R: got a matrix that is not Hermitian, expected a covariance matrix")
    if sources is not None:
        whole("sources", sources)
        if sources >= R.shape[-1]:
            raise ValueError(
                f"sources: got {sources}, expected fewer than the {R.shape[-1]} sensors of R, so "
                "that noise has room"
            )
