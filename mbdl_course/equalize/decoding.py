"""Decoding by message passing: belief propagation on a parity-check matrix, with a slot for what
multiplies its messages.

The factor graph of a code has cycles, unlike a trellis: sum-product is then an iteration and no
longer exact. Weights on its edges are the hyperparameters that are unfolded.
"""

from itertools import accumulate

import torch
from torch.nn.functional import softplus

from mbdl_course.learn import seeded


def bch_63_45():
    """H (18, 63) of the cyclic code BCH(63, 45), which corrects 3 errors: 432 ones.

    Its generator is 1701317 (octal); the rows are shifts of (x⁶³ − 1)/g(x), reversed.
    """
    generator, rest, quotient = 0o1701317, 1 << 63 | 1, 0
    for shift in range(45, -1, -1):
        if rest >> (shift + 18) & 1:
            rest, quotient = rest ^ generator << shift, quotient | 1 << shift
    row = torch.tensor([quotient >> k & 1 for k in range(45, -1, -1)] + [0] * 17)
    return torch.stack([row.roll(k) for k in range(18)])


def belief_propagation(llr, H, weights):
    """One (log-likelihood ratios of the bits, messages) for each weight that arrives, the start
    first: sum-product on the factor graph of H, flooding schedule.

    llr (..., n) = log p(x | 0)/p(x | 1), H (checks, n) of zeros and ones. Each iteration: a bit
    tells each of its checks llr + Σ w · (what its other checks said); a check tells each of its
    bits 2 atanh Π tanh(·/2) over its other bits. w: 1 for belief propagation, a number to damp it,
    or one for each edge, row after row (edges,). Nachmani, Be'ery, Burshtein 2016, "Learning to
    Decode Linear Codes Using Deep Learning", doi 10.1109/ALLERTON.2016.7852251. Raises ValueError
    for a matrix and an llr that do not fit.
    """
    if H.ndim != 2 or ((H != 0) & (H != 1)).any() or llr.shape[-1:] != H.shape[1:]:
        raise ValueError(
            f"H, llr: got shapes {tuple(H.shape)} and {tuple(llr.shape)}, expected zeros and ones "
            "(checks, n), and (..., n)"
        )
    check, bit = H.nonzero(as_tuple=True)
    zero = llr.new_zeros(*llr.shape[:-1], len(H))

    def others(values, node, total):
        """Σ of the values of all other edges of the same node."""
        return total.index_add(-1, node, values)[..., node] - values

    def step(state, theta):
        _, said = state
        (w,) = theta if isinstance(theta, tuple) else (theta,)
        told = llr[..., bit] + others(w * said, bit, torch.zeros_like(llr))
        t = (told / 2).tanh()
        size = others(t.abs().clamp(min=1e-7).log(), check, zero).exp().clamp(max=1 - 1e-6)
        sign = 1 - 2 * (others((t < 0).to(llr), check, zero) % 2)
        said = 2 * sign * size.atanh()
        return llr.index_add(-1, bit, w * said), said

    start = llr.new_zeros(*llr.shape[:-1], len(bit))
    return accumulate(weights, step, initial=(llr, start))


def zero_words(count, ebn0_db, generator, rate=45 / 63, n=63):
    """llr (count, n) of the word of zeros, sent as +1: σ² = 1/(2 · rate · 10^(ebn0_db/10)).

    Channel and decoder treat 0 and 1 alike, so no other word is needed. ebn0_db: a number, or a
    tensor (count, 1).
    """
    variance = 1 / (2 * rate * 10 ** (torch.as_tensor(ebn0_db) / 10))
    x = 1 + variance**0.5 * torch.randn(count, n, generator=generator)
    return 2 * x / variance


def noisy_words(size, seed, low=3.0, high=6.0):
    """Endless batches (llr, llr) of words of zeros at an Eb/N0 in dB drawn for each."""
    generator = seeded(seed)
    while True:
        ebn0_db = low + (high - low) * torch.rand(size, 1, generator=generator)
        llr = zero_words(size, ebn0_db, generator)
        yield llr, llr


def bit_error(llrs, _):
    """The cross-entropy of the bits of the word of zeros, ln(1 + e^(−llr)), averaged."""
    return softplus(-llrs).mean()
