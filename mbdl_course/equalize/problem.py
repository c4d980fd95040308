"""The problem: symbols through a channel that remembers the last few, and the score of a receiver.

A symbol is a whole number s_t = 0 ... symbols − 1, an observation x_t is a real number: (T, ...),
time leads, blocks come last, receivers between. A state is the last `memory` symbols, the newest
the last digit: state_t = (symbols · state_{t−1} + s_t) mod symbols^memory.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

BPSK, ON_OFF = (-1.0, 1.0), (0.0, 1.0)  # what is sent for the symbols 0 and 1

# ---- Channels ----------------------------------------------------------------------------------


class Law(NamedTuple):
    """What a channel makes of u = Σ_k h_k a(s_{t−k}), the sum of what was sent, each by its tap.

    levels: a of each symbol; draw(u, noise) -> x, from standard normal draws, all shaped alike;
    log_likelihood(x, u) -> log p(x | u), (..., states), for x (...) and u (..., states).
    """

    levels: tuple
    draw: Callable
    log_likelihood: Callable


def gaussian(snr_db, response=lambda u: u):
    """The Law x = response(u) + w, w ~ N(0, σ²), σ² = 10^(−snr_db/10), of BPSK symbols ±1.

    SNR = 1/σ²: the power of one symbol before the taps, over the noise variance *per real
    dimension*, x being one real number; the taps are not scaled. A flat channel, h = (1), has the
    symbol error rate Q(√SNR). snr_db: a number, or a tensor that broadcasts with x.
    """
    sigma = 10 ** (-torch.as_tensor(snr_db) / 20)

    def log_likelihood(x, u):
        width = sigma.to(x)[..., None]
        score = (x[..., None] - response(u)) / width
        return -score.square() / 2 - width.log() - math.log(2 * math.pi) / 2

    return Law(BPSK, lambda u, noise: response(u) + sigma.to(u) * noise, log_likelihood)


def saturated(snr_db):
    """The Gaussian Law behind an amplifier that saturates, x = tanh(u) + w; SNR = 1/σ² again."""
    return gaussian(snr_db, torch.tanh)


def heavy_tailed(snr_db, response=lambda u: u):
    """The Law x = response(u) + σ t, t of Student's distribution with two degrees of freedom.

    BPSK ±1. The variance is infinite; SNR = 1/σ² with σ² = 10^(−snr_db/10) for the scale alone.
    """
    sigma = 10 ** (-torch.as_tensor(snr_db) / 20)

    def draw(u, noise):  # the quantile of t at the probability of the normal draw
        below, above = torch.special.ndtr(noise), torch.special.ndtr(-noise)
        return response(u) + sigma.to(u) * (below - above) / (2 * below * above).sqrt()

    def log_likelihood(x, u):
        width = sigma.to(x)[..., None]
        t = (x[..., None] - response(u)) / width
        return -1.5 * (t.square() / 2).log1p() - width.log() - math.log(8) / 2

    return Law(BPSK, draw, log_likelihood)


def poisson(snr_db):
    """The Law x ~ Poisson(√ρ u + 1), ρ = 10^(snr_db/10): photons of a light that is on or off.

    Symbols are 0 and 1 photons' worth, 1 the dark count. Noise becomes x by its quantile, so the
    same noise at another SNR is the same draw, moved.
    """
    gain = 10 ** (torch.as_tensor(snr_db) / 20)

    def rate(u, gain):
        return (gain.to(u) * u + 1).clamp(min=0.05)  # wrong taps may say less than no light

    def draw(u, noise):
        level = torch.special.ndtr(noise).clamp(max=1 - torch.finfo(noise.dtype).eps)
        return poisson_quantile(level, rate(u, gain))

    def log_likelihood(x, u):
        x, mean = x[..., None], rate(u, gain[..., None])
        return torch.special.xlogy(x, mean) - mean - torch.lgamma(x + 1)

    return Law(ON_OFF, draw, log_likelihood)


def poisson_quantile(level, rate):
    """The smallest whole number k with P(X ≤ k) ≥ level, X ~ Poisson(rate), by bisection."""
    low, high = -torch.ones_like(rate), (rate + 10 * rate.sqrt() + 10).ceil()
    for _ in range(math.ceil(math.log2((high - low).max().item())) if rate.numel() else 0):
        middle = ((low + high) / 2).floor()
        short = torch.special.gammaincc(middle.clamp(min=0) + 1, rate) < level
        short = short | (middle < 0)
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return high


def exponential(gamma, memory=4, dtype=torch.float32):
    """Taps h_k = exp(−γ k), k = 0 ... memory − 1, newest first, (memory,); not scaled."""
    whole("memory", memory)
    return torch.exp(-gamma * torch.arange(memory, dtype=dtype))


def disturbed(taps, noise, variance):
    """Channel state information with errors: h_k (1 + √variance · noise), noise (..., memory)."""
    return taps * (1 + math.sqrt(variance) * noise)


def fading(taps, block, phase=0.0):
    """Block fading h_k (0.8 + 0.2 cos(2π n / T_k + phase)), T = 51, 39, 33, 21 blocks; n = block.

    block and phase: numbers or tensors (...); taps (4,); answers (..., 4).
    """
    if taps.shape[-1] != 4:
        raise ValueError(f"taps: got {taps.shape[-1]} of them, expected 4, one for each period")
    period = torch.tensor([51, 39, 33, 21]).to(taps)
    angle = 2 * math.pi * torch.as_tensor(block).to(taps)[..., None] / period
    return taps * (0.8 + 0.2 * (angle + torch.as_tensor(phase).to(taps)[..., None]).cos())


# 3GPP TR 38.901, tables 7.7.2-1 to 7.7.2-3: delays in units of the delay spread, powers in dB.
PROFILES = {
    "TDL-A": (
        (0.0, 0.3819, 0.4025, 0.5868, 0.4610, 0.5375, 0.6708, 0.5750, 0.7618, 1.5375, 1.8978,
         2.2242, 2.1718, 2.4942, 2.5119, 3.0582, 4.0810, 4.4579, 4.5695, 4.7966, 5.0066, 5.3043,
         9.6586),
        (-13.4, 0.0, -2.2, -4.0, -6.0, -8.2, -9.9, -10.5, -7.5, -15.9, -6.6, -16.7, -12.4, -15.2,
         -10.8, -11.3, -12.7, -16.2, -18.3, -18.9, -16.6, -19.9, -29.7),
    ),
    "TDL-B": (
        (0.0, 0.1072, 0.2155, 0.2095, 0.2870, 0.2986, 0.3752, 0.5055, 0.3681, 0.3697, 0.5700,
         0.5283, 1.1021, 1.2756, 1.5474, 1.7842, 2.0169, 2.8294, 3.0219, 3.6187, 4.1067, 4.2790,
         4.7834),
        (0.0, -2.2, -4.0, -3.2, -9.8, -1.2, -3.4, -5.2, -7.6, -3.0, -8.9, -9.0, -4.8, -5.7, -7.5,
         -1.9, -7.6, -12.2, -9.8, -11.4, -14.9, -9.2, -11.3),
    ),
    "TDL-C": (
        (0.0, 0.2099, 0.2219, 0.2329, 0.2176, 0.6366, 0.6448, 0.6560, 0.6584, 0.7935, 0.8213,
         0.9336, 1.2285, 1.3083, 2.1704, 2.7105, 4.2589, 4.6003, 5.4902, 5.6077, 6.3065, 6.6374,
         7.0427, 8.6523),
        (-4.4, -1.2, -3.5, -5.2, -2.5, 0.0, -2.2, -3.9, -7.4, -7.1, -10.7, -11.1, -5.1, -6.8, -8.7,
         -13.2, -13.9, -13.9, -15.8, -17.1, -16.0, -15.7, -21.6, -22.8),
    ),
}  # fmt: skip


def profile(name, spread, memory=4, dtype=torch.float32):
    """The power of each of `memory` taps at symbol spacing, (memory,), of sum 1, by a 3GPP profile.

    spread: the delay spread in symbols. Each path goes to the nearest tap, those beyond the memory
    to none. Multiply its root by normal draws for the taps of Rayleigh fading (one real dimension).
    """
    if name not in PROFILES:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(PROFILES)}")
    if not 0 <= spread < math.inf:
        raise ValueError(f"spread: got {spread}, expected symbols, 0 or more")
    delays, powers = (torch.tensor(v, dtype=dtype) for v in PROFILES[name])
    taps = torch.zeros(whole("memory", memory), dtype=dtype)
    at = (delays * spread).round().long()
    taps.index_add_(0, at[at < memory], 10 ** (powers[at < memory] / 10))
    return taps / taps.sum()


def loaded(path, key=None):
    """Taps of your own, (..., memory), from a .npz or .mat file: the array `key`, or the only one.

    ValueError for complex taps (the channels here are real: take one dimension, or the magnitude),
    and where the key is missing or needed.
    """
    if (kind := Path(path).suffix) not in (".npz", ".mat"):
        raise ValueError(f"path: got {path}, expected a .npz or .mat file")
    if kind == ".mat":
        from scipy.io import loadmat  # only here, and not a dependency of the course

        arrays = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
    else:
        with np.load(path) as file:
            arrays = dict(file)
    if key is None and len(arrays) == 1:
        (key,) = arrays
    if key not in arrays:
        raise ValueError(f"key: got {key!r}, expected one of {', '.join(arrays)}")
    if np.iscomplexobj(arrays[key]):
        raise ValueError(f"path: {key} is complex, expected real taps; take a part of it")
    taps = torch.as_tensor(np.asarray(arrays[key], dtype=np.float32))
    if not taps.numel() or not taps.isfinite().all():
        raise ValueError(f"path: {key} is empty or not finite, expected taps (..., memory)")
    return taps


# ---- What is sent, and what arrives ------------------------------------------------------------


class Sent(NamedTuple):
    """Symbols s and states, whole numbers, and standard normal noise, all (T, ...)."""

    s: torch.Tensor
    state: torch.Tensor
    noise: torch.Tensor


def sent(horizon, shape, memory, generator, symbols=2, dtype=torch.float32):
    """Random symbols, all alike, over `horizon` steps, for each entry of `shape`: Sent.

    What came before the first step is random, too: no receiver is told where a block starts from.
    """
    for name, value in (("horizon", horizon), ("memory", memory)):
        whole(name, value)
    s = torch.randint(symbols, (horizon + memory - 1, *shape), generator=generator)
    noise = torch.randn(horizon, *shape, generator=generator, dtype=dtype)
    return Sent(s[memory - 1 :], states_of(s, memory, symbols), noise)


def states_of(s, memory, symbols=2):
    """The state at each step, (T, ...), of symbols s (T + memory − 1, ...) that begin earlier."""
    whole("memory", memory)
    if len(s) < memory:
        raise ValueError(f"s: got {len(s)} symbols, expected {memory} or more, one state")
    if s.is_floating_point() or s.is_complex() or s.min() < 0 or s.max() >= symbols:
        raise ValueError(f"s: got other than whole numbers 0 to {symbols - 1}")
    T = len(s) - memory + 1
    return sum(s[memory - 1 - k : memory - 1 - k + T] * symbols**k for k in range(memory))


def recent(memory, levels=BPSK, dtype=torch.float32):
    """What was sent last in each state, newest first: (states, memory)."""
    state = torch.arange(len(levels) ** memory)[:, None]
    digits = state // len(levels) ** torch.arange(memory) % len(levels)
    return torch.tensor(levels, dtype=dtype)[digits]


def outputs(taps, levels=BPSK):
    """u of each state, (..., states), for taps (..., memory)."""
    return taps @ recent(taps.shape[-1], levels, taps.dtype).to(taps).mT


def received(law, taps, sent):
    """The observations x (T, ...) of what was Sent, taps (..., memory) that broadcast with it."""
    where = recent(taps.shape[-1], law.levels, taps.dtype).to(taps)[sent.state]
    return law.draw((where * taps).sum(-1), sent.noise)


# ---- Scores ------------------------------------------------------------------------------------


class Rate(NamedTuple):
    """A symbol error rate, its 95 % interval, and the number of errors counted, each (...)."""

    rate: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    errors: torch.Tensor


def ser(s_hat, s):
    """The Rate of wrong symbols among s (T, ..., blocks), over time and blocks.

    The interval is Wilson's for the number of independent symbols that would vary as the blocks do:
    a wrong path is wrong several times in a row, and blocks share a channel.
    """
    if s_hat.shape != s.shape or s.ndim < 2:
        raise ValueError(
            f"s_hat, s: got shapes {tuple(s_hat.shape)} and {tuple(s.shape)}, expected the same, "
            "(T, ..., blocks)"
        )
    wrong = (s_hat != s).double()
    count, blocks = len(s) * s.shape[-1], s.shape[-1]
    p, errors = wrong.mean((0, -1)), wrong.sum((0, -1))
    spread = wrong.mean(0).var(-1) / blocks if blocks > 1 else torch.zeros_like(p)
    n = torch.where(spread > 0, (p * (1 - p) / spread).clamp(1, count), count)
    z2 = 1.96**2
    middle, root = p + z2 / (2 * n), (z2 * (p * (1 - p) / n + z2 / (4 * n**2))).sqrt()
    return Rate(p, (middle - root) / (1 + z2 / n), (middle + root) / (1 + z2 / n), errors.long())


def whole(name, value):
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: got {value!r}, expected a whole number, 1 or more")
    return value
