"""The problem: x = H s + w and other channels, imperfect knowledge of H, rates of error."""

from collections.abc import Callable
from itertools import accumulate, product
from typing import NamedTuple

import torch

from mbdl_course.fold import last

# ---- Channels ----------------------------------------------------------------------------------


class Channel(NamedTuple):
    """What a medium makes of symbols, and how likely that was.

    observed(s, H, w, snr_db) -> x (..., n, 1) from symbols s (..., m, 1) of ±1, H (..., n, m) and
    standard normal w (..., n, 1), so that the same draw moves smoothly with the SNR.
    log_likelihood(x, s, H, snr_db) -> log p(x | s) but for a constant, (..., count), of `count`
    candidates, the columns of s (..., m, count).

    **SNR = 1/σ²** for all of them: symbols are ±1, and σ² is the noise variance of each *real*
    entry of x. A complex channel is a real one of twice the size: `real_model`.
    """

    observed: Callable
    log_likelihood: Callable


def variance(snr_db):
    """σ² = 10^(−snr_db/10), the noise variance of each real entry of x."""
    return 10 ** (-snr_db / 10)


def gaussian_observed(s, H, w, snr_db):
    return H @ s + w * variance(snr_db) ** 0.5


def gaussian_likelihood(x, s, H, snr_db):
    return -((x - H @ s).square() / (2 * variance(snr_db))).sum(-2)


def saturated_observed(s, H, w, snr_db):
    return torch.tanh(H @ s) + w * variance(snr_db) ** 0.5


def saturated_likelihood(x, s, H, snr_db):
    return -((x - torch.tanh(H @ s)).square() / (2 * variance(snr_db))).sum(-2)


def square_law_observed(s, H, w, snr_db):
    return (H @ (s + 1)).square() / 4 + w * variance(snr_db) ** 0.5


def square_law_likelihood(x, s, H, snr_db):
    return -((x - (H @ (s + 1)).square() / 4).square() / (2 * variance(snr_db))).sum(-2)


def rate(s, H, snr_db):
    """√SNR H b + 1 with b = (s + 1)/2: users are on (1) or off (0), one count comes from the dark.

    The form follows the Poisson channel with memory in the code of DeepSIC's authors; none of a
    MIMO one is public.
    """
    return variance(snr_db) ** -0.5 * (H @ (s + 1)) / 2 + 1


def poisson_observed(s, H, w, snr_db):
    return counts(rate(s, H, snr_db), w)


def poisson_likelihood(x, s, H, snr_db):
    return (x * rate(s, H, snr_db).log() - rate(s, H, snr_db)).sum(-2)


GAUSSIAN = Channel(gaussian_observed, gaussian_likelihood)  # x = Hs + w
SATURATED = Channel(saturated_observed, saturated_likelihood)  # x = tanh(Hs) + w: amplifiers
SQUARE_LAW = Channel(square_law_observed, square_law_likelihood)  # x = (Hb)² + w: a photodiode
POISSON = Channel(poisson_observed, poisson_likelihood)  # photons are counted; b as in `rate`


def counts(rate, w):
    """Poisson counts of these rates: the least k with cdf(k) ≥ Φ(w) for standard normal w.

    A count moves with its rate, where a sampler would start anew. Raises ValueError for rates that
    are negative or too large for exp(−rate), above 700.
    """
    if not (rate.min() >= 0 and rate.max() <= 700):
        low, high = rate.min().item(), rate.max().item()
        hint = "; lower the SNR" if high > 700 else ""
        raise ValueError(f"rate: got {low:.4g} to {high:.4g}, expected 0 to 700{hint}")
    rates, level = rate.double(), torch.special.ndtr(w.double())

    def step(state, k):
        total, probability, cdf = state
        probability = probability * rates / k
        return total + (cdf < level), probability, cdf + probability

    most = int(rates.max() + 10 * rates.max().sqrt() + 20)
    none = torch.exp(-rates)
    start = torch.zeros_like(level), none, none
    return last(accumulate(range(1, most), step, initial=start))[0].to(rate.dtype)


# ---- Draws -------------------------------------------------------------------------------------


class Received(NamedTuple):
    """What a receiver is given where every observation has its own channel."""

    x: torch.Tensor
    H: torch.Tensor
    variance: torch.Tensor


def symbols(*shape, generator, dtype=torch.float32):
    """Random symbols of ±1, e.g. (count, m, 1)."""
    return 2 * torch.randint(0, 2, shape, generator=generator).to(dtype) - 1


def decaying(antennas, users, dtype=torch.float32):
    """H_ij = exp(−|i − j|), (antennas, users): neighbours disturb most."""
    i, j = (torch.arange(size, dtype=dtype) for size in (antennas, users))
    return torch.exp(-(i[:, None] - j).abs())


def rayleigh(*shape, generator, dtype=torch.float32):
    """Gaussian channels (..., n, m), scaled to Σ H_ij² = m: users have energy 1 on average.

    So 1/σ² is tr(HᵀH)/(mσ²), the SNR of Samuel, Diskin, Wiesel 2019, doi 10.1109/TSP.2019.2899805.
    """
    H = torch.randn(shape, generator=generator, dtype=dtype)
    return H * (shape[-1] ** 0.5 / torch.linalg.matrix_norm(H, keepdim=True))


def uncertain(H, error, z):
    """H ∘ (1 + √error z), entry by entry: what one believes of H; z is standard normal."""
    if not error >= 0:
        raise ValueError(f"error: got {error}, expected a variance, 0 or more")
    return H * (1 + error**0.5 * z)


def real_model(H):
    """[[Re H, −Im H], [Im H, Re H]]: a complex channel (..., n, m) as a real one (..., 2n, 2m).

    A QPSK symbol of user k is a pair of ±1, entries k (real part) and m + k (imaginary part).
    """
    if not H.is_complex():
        raise TypeError(f"H: got {H.dtype}, expected a complex channel")
    return torch.cat([torch.cat([H.real, -H.imag], -1), torch.cat([H.imag, H.real], -1)], -2)


# ---- Error rates -------------------------------------------------------------------------------


def hard(s_hat):
    """The decision ±1 on soft symbols or log-odds; 0 counts as +1."""
    return torch.where(s_hat < 0, -1.0, 1.0).to(s_hat)


def wrong(s_hat, s):
    """Which bits are wrong, (..., m, 1) of booleans. Raises ValueError for shapes that differ."""
    if s_hat.shape != s.shape:
        raise ValueError(f"s_hat: got shape {tuple(s_hat.shape)}, expected {tuple(s.shape)}")
    return hard(s_hat) != s


def ber(s_hat, s):
    """Bit error rate: the fraction of all entries of s whose sign is missed; a 0-dim tensor."""
    return wrong(s_hat, s).double().mean()


def qpsk_ser(s_hat, s):
    """Symbol error rate of QPSK in the real model: a pair (k, m + k) with either bit wrong.

    Of BPSK, a bit is a symbol: `ber`. Raises ValueError for an odd number of entries.
    """
    if s.shape[-2] % 2:
        raise ValueError(f"s: got {s.shape[-2]} entries, expected pairs of real and imaginary part")
    real, imaginary = wrong(s_hat, s).chunk(2, -2)
    return (real | imaginary).double().mean()


class Rate(NamedTuple):
    """An error rate with the errors it counted and its 95 % interval (Wilson's)."""

    rate: float
    errors: int
    low: float
    high: float


def counted(errors, trials):
    """The Rate of so many errors in so many independent trials; Wilson 1927,
    doi 10.1080/01621459.1927.10502953."""
    if not (0 <= errors <= trials and trials >= 1):
        raise ValueError(f"errors: got {errors} in {trials} trials, expected 0 to {trials}")
    p, z = errors / trials, 1.959964
    middle = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * (p * (1 - p) / trials + z**2 / (4 * trials**2)) ** 0.5 / (1 + z**2 / trials)
    return Rate(p, int(errors), max(0.0, middle - half), min(1.0, middle + half))


# ---- Checks ------------------------------------------------------------------------------------


def checked(x, H):
    """x and H, once they fit; an error names what does not."""
    for name, value in (("x", x), ("H", H)):
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            came = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            hint = "; a complex channel: real_model(H)" if "complex" in str(came) else ""
            raise TypeError(f"{name}: got {came}, expected a tensor of real floats{hint}")
    if x.ndim < 2 or x.shape[-1] != 1:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected columns (..., n, 1)")
    if H.ndim < 2 or H.shape[-2] != x.shape[-2]:
        raise ValueError(f"H: got shape {tuple(H.shape)}, expected (..., {x.shape[-2]}, m)")
    if x.dtype != H.dtype or x.device != H.device:
        came, expected = (f"{v.dtype} on {v.device}" for v in (H, x))
        raise TypeError(f"H: got {came}, expected what x has, {expected}")
    for name, value in (("x", x), ("H", H)):
        if not value.isfinite().all():
            raise ValueError(f"{name}: got NaN or Inf, expected finite numbers")
    return x, H


def candidates(users, like):
    """All 2^m vectors of ±1 as the columns of (m, 2^m); ValueError past 2^16."""
    if users > 16:
        raise ValueError(
            f"H: got {users} users, 2^{users} hypotheses, expected 16 at most; use "
            "soft_interference_cancellation"
        )
    return torch.tensor(list(product((-1.0, 1.0), repeat=users))).mT.to(like)
