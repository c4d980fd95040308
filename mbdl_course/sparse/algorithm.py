"""The algorithms: each a step, folded over the parameters that arrive."""

import math
from itertools import accumulate
from typing import NamedTuple

import torch

from mbdl_course.prox import keep_largest, soft_threshold

from .parts import gradient, gram, ridge
from .problem import begin, checked, positive


def ista(x, H, thetas, start=None, part=None, shrink=soft_threshold):
    """s_{k+1} = T_β(v), v = s_k + μ Hᵀ(x − H s_k), β = μρ: one state for each θ = (μ, ρ); (15).

    x (..., n, 1), H (n, m) or an operator, start (..., m, 1) or zero. The slot `part` maps (x, H)
    to what makes (v, β) from (s, θ); `gradient` is the model's own, `matrices` the learned one.
    The slot `shrink` gets (v, β) and what θ has beside: `soft_threshold`, `select_support`, ...
    Raises ValueError/TypeError for a misshapen, non-finite or mixed input.
    """
    H = checked(x, H)
    move = (part or gradient)(x, H)

    def step(s, theta):
        return shrink(*move(s, *theta))

    return accumulate(thetas, step, initial=begin(x, H, start))


class Momentum(NamedTuple):
    """FISTA's state: the estimate s, the extrapolated point z, the momentum counter t."""

    s: torch.Tensor
    z: torch.Tensor
    t: float


def fista(x, H, thetas, start=None, part=None):
    """ISTA's step taken at z_k = s_k + γ_k (s_k − s_{k−1}), γ_k = (t_{k−1} − 1)/t_k; θ = (μ, ρ).

    θ = (μ, ρ, γ) brings the momentum along, to be learned. Beck and Teboulle 2009,
    doi 10.1137/080716542, (4.1)-(4.3); objective gap O(1/k²).
    """
    H = checked(x, H)
    move = (part or gradient)(x, H)

    def step(state, theta):
        v, beta, *momentum = move(state.z, *theta)
        s = soft_threshold(v, beta)
        t = (1 + math.sqrt(1 + 4 * state.t**2)) / 2
        gamma = momentum[0] if momentum else (state.t - 1) / t
        return Momentum(s, s + gamma * (s - state.s), t)

    s = begin(x, H, start)
    return accumulate(thetas, step, initial=Momentum(s, s, 1.0))


class Split(NamedTuple):
    """ADMM's state: the sparse copy v (the estimate), the fitted copy s, the scaled dual u."""

    v: torch.Tensor
    s: torch.Tensor
    u: torch.Tensor


def admm(x, H, thetas, start=None, part=None):
    """s = (HᵀH + 2λI)⁻¹(Hᵀx + 2λ(v − u)); v = T_{ρ/2λ}(s + u); u ← u + μ(s − v); Algorithm 1.

    One state for each θ = (λ, μ, ρ). The estimate is v, the copy with exact zeros. The slot `part`
    maps (x, H) to what makes s from (v − u, θ) and hands on λ, μ, ρ: `ridge`, or learned `filters`.
    """
    H = checked(x, H)
    fit = (part or ridge)(x, H)

    def step(state, theta):
        s, lam, mu, rho = fit(state.v - state.u, *theta)
        v = soft_threshold(s + state.u, rho / (2 * lam))
        return Split(v, s, state.u + mu * (s - v))

    v = begin(x, H, start)
    return accumulate(thetas, step, initial=Split(v, v, torch.zeros_like(v)))


def iht(x, H, thetas, start=None):
    """s_{k+1} = the `sparsity` largest entries of s_k + μHᵀ(x − Hs_k); θ = (μ, sparsity).

    ISTA with another value in its shrinkage slot. Blumensath and Davies 2009,
    doi 10.1016/j.acha.2009.04.002; (32) in Monga, Li, Eldar 2021, doi 10.1109/MSP.2020.3016905.
    """

    def part(x, H):
        move = gradient(x, H)
        return lambda s, mu, sparsity: (move(s, mu, 0.0)[0], sparsity)

    return ista(x, H, thetas, start, part, shrink=keep_largest)


def coordinate_descent(x, H, rho, coordinates, start=None):
    """Minimise (14) over one coordinate at a time: what arrives are the coordinates j.

    s_j ← T_{ρ/‖h_j‖²}(s_j + h_jᵀ(x − Hs)/‖h_j‖²). The state is (s, x − Hs); H is a dense matrix.
    """
    operator = checked(x, H)
    if not isinstance(H, torch.Tensor):
        raise TypeError(f"H: got {type(H).__name__}, expected a dense matrix with columns")
    positive("rho", rho)
    energy = H.square().sum(0)
    s = begin(x, operator, start)

    def step(state, j):
        s, residual = state
        h = H[:, j, None]
        old = s[..., j, None, :]
        new = soft_threshold(old + h.mT @ residual / energy[j], rho / energy[j])
        at = torch.full((1,), j, device=s.device)
        return s.index_copy(-2, at, new), residual + h @ (old - new)

    return accumulate(coordinates, step, initial=(s, x - operator @ s))


class Coordinates(NamedTuple):
    """Greedy coordinate descent's state: the estimate s, and b = Hᵀx + (I − HᵀH)s."""

    s: torch.Tensor
    b: torch.Tensor


def greedy_descent(x, H, thetas, part=None):
    """Set the one coordinate of each signal that wants to move most: s_j = z_j, z = T_ρ(b).

    j = argmax |z − s|, then b ← b + S_{·j}(z_j − s_j) with S = I − HᵀH; θ = ρ. One step costs one
    column, not two matrices. The slot `part` maps (x, H) to what makes (S, β) of θ: `gram`, or
    `learned_gram` (LCoD). H: a matrix with columns of norm 1. Li, Osher 2009,
    doi 10.3934/ipi.2009.3.487; Gregor, LeCun 2010, Algorithms 2 and 4.
    """
    matrix, H = H, checked(x, H)
    if not isinstance(matrix, torch.Tensor) or (matrix.norm(dim=0) - 1).abs().max() > 1e-3:
        raise ValueError(
            "H: got another norm than 1 in a column, expected a matrix of unit columns"
        )
    column = (part or gram)(x, H)

    def step(state, theta):
        S, beta = column(*(theta if isinstance(theta, tuple) else (theta,)))
        change = soft_threshold(state.b, beta) - state.s
        j = change.abs().argmax(-2, keepdim=True)
        moved = torch.zeros_like(change).scatter(-2, j, change.gather(-2, j))
        by = moved.gather(-2, j)
        return Coordinates(state.s + moved, state.b + S.mT[j[..., 0, 0]][..., None] * by)

    s = begin(x, H, None)
    return accumulate(thetas, step, initial=Coordinates(s, H.mT @ x))
