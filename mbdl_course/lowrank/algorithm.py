"""The algorithms: each a step on (S, L), folded over the parameters that arrive."""

import math
from itertools import accumulate
from typing import NamedTuple

import torch

from mbdl_course.prox import row_threshold, singular_value_threshold

from .parts import gradient
from .problem import Parts, begin, checked


def shrink(V_S, beta_S, V_L, beta_L):
    """The two proximal maps: rows of V_S, singular values of V_L."""
    return Parts(row_threshold(V_S, beta_S), singular_value_threshold(V_L, beta_L))


def ista(x, H, thetas, start=None, part=None):
    """S ← T_{μρ_S}(S + μH2ᴴR), L ← SVT_{μρ_L}(L + μH1ᴴR), R = X − H1 L − H2 S; θ = (μ, ρ_S, ρ_L).

    x (..., pixels, frames), real or complex; H = (H1, H2), None in place of an identity; start a
    Parts or zero. Yields Parts (S, L), one for each θ. The slot `part` maps (x, H) to what makes
    (V_S, β_S, V_L, β_L) from (S, L, θ): `gradient` is the model's own, `convolutions` the learned.
    (11) in Shlezinger et al. 2023 without its slips: there 1/μ, the step, stands before one term of
    three, and is missing from the thresholds.
    Raises ValueError/TypeError for a misshapen, non-finite or mixed input.
    """
    move = (part or gradient)(x, checked(x, H))

    def step(state, theta):
        return shrink(*move(*state, *theta))

    return accumulate(thetas, step, initial=begin(x, H, start))


class Momentum(NamedTuple):
    """FISTA's state: the estimates S and L, the extrapolated point z, the momentum counter t."""

    S: torch.Tensor
    L: torch.Tensor
    z: Parts
    t: float


def fista(x, H, thetas, start=None, part=None):
    """ISTA's step taken at z_k = p_k + (t_{k−1} − 1)/t_k (p_k − p_{k−1}) for p = (S, L).

    Beck and Teboulle 2009, doi 10.1137/080716542, (4.1)-(4.3).
    """
    move = (part or gradient)(x, checked(x, H))

    def step(state, theta):
        new = shrink(*move(*state.z, *theta))
        t = (1 + math.sqrt(1 + 4 * state.t**2)) / 2
        z = Parts(*(a + (state.t - 1) / t * (a - b) for a, b in zip(new, state[:2], strict=True)))
        return Momentum(*new, z, t)

    first = begin(x, H, start)
    return accumulate(thetas, step, initial=Momentum(*first, first, 1.0))


def svd_filter(x, rank):
    """Parts of the usual clutter filter: L is the best approximation of x of the given rank.

    No threshold and no iteration: what is strong and coherent goes. ValueError unless
    0 ≤ rank ≤ min(pixels, frames).
    """
    checked(x, None)
    if not 0 <= rank <= min(x.shape[-2:]):
        raise ValueError(f"rank: got {rank}, expected 0 to {min(x.shape[-2:])}")
    U, sigma, Wh = torch.linalg.svd(x, full_matrices=False)
    L = (U[..., :rank] * sigma[..., None, :rank]) @ Wh[..., :rank, :]
    return Parts(x - L, L)
