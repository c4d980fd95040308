"""The algorithm: one filter with a slot for its gain, the likelihood, and the particle filter."""

import math
from itertools import accumulate, repeat
from typing import Any, NamedTuple

import torch

from .problem import Model, apply, square_root


class Gain(NamedTuple):
    """What a gain answers, before the observation counts: the slot's value returns one of these.

    K (..., m, n); s, x: the state and the observation that are expected. A gain that knows what it
    does not know adds Sigma, its covariance after the update; S, that of the innovation; before,
    that of the expected state; cross, Cov(s_{t−1}, s_t) before the update. `memory` is whatever
    the gain wants back at the next step.
    """

    K: torch.Tensor
    s: torch.Tensor
    x: torch.Tensor
    Sigma: torch.Tensor | None = None
    S: torch.Tensor | None = None
    before: torch.Tensor | None = None
    cross: torch.Tensor | None = None
    memory: Any = None


class Belief(NamedTuple):
    """What is believed of a state: the estimate s (..., m, 1), its covariance Sigma (..., m, m),
    or (m, m) for the whole batch where it does not depend on the data; how it came about."""

    s: torch.Tensor
    Sigma: torch.Tensor | None = None
    memory: Any = None
    innovation: torch.Tensor | None = None
    gain: Gain | None = None
    seen: torch.Tensor | None = None


def filtered(xs, model, gain, start, missing=False):
    """One Belief for each observation that arrives, the start first.

    (K, s, x) = gain(belief, x_t), ŝ_t = s + K (x_t − x). With `riccati` this is the Kalman filter,
    (11) without control in Shlezinger, Eldar, Boyd 2022, doi 10.1109/ACCESS.2022.3218802; with a
    network in the slot, (23).

    xs (T, ..., n, 1), time leads; start: the belief before the first step. A NaN in xs is an error,
    unless missing=True: then it is an entry not seen, and is left out of the update exactly.
    Raises TypeError or ValueError for a model, a start or observations that do not fit,
    FloatingPointError at the step where the estimate stops being finite: the filter has diverged
    (on a GPU it is seen after the last step).
    """
    checked(xs, model, start, missing)

    def step(belief, arriving):
        x, seen, gain = arriving
        g = gain(belief, x, seen)
        innovation = x - g.x if seen is None else torch.where(seen, x - g.x, 0)
        return Belief(g.s + g.K @ innovation, g.Sigma, g.memory, innovation, g, seen)

    seen, gains = repeat(None), repeat(gain)
    if missing and xs.isnan().any():
        seen = ~xs.isnan()
    elif hasattr(gain, "ahead"):  # it need not wait for the data
        gains = gain.ahead(start, len(xs))
    return finite(accumulate(zip(xs, seen, gains, strict=False), step, initial=start))


def finite(beliefs):
    """The same beliefs; FloatingPointError at the first that is not finite: on a GPU, where each
    look would have to be waited for, after the last."""
    for t, belief in enumerate(beliefs):
        if not belief.s.is_cuda:
            still_finite(belief, t)
        yield belief
    if belief.s.is_cuda:
        still_finite(belief, t)


def still_finite(belief, t):
    if not math.isfinite(belief.s.sum().item()):  # cheaper than isfinite of each
        raise FloatingPointError(
            f"the filter has diverged: its estimate after observation {t} is not finite; "
            "is the model unstable or far from what is observed?"
        )


def history(beliefs):
    """The beliefs after each observation as one Belief whose tensors have time in front.

    What is shared by a batch gets dimensions of size 1, so that all fields broadcast. Memories are
    dropped. ValueError if there is no observation.
    """
    _, *beliefs = beliefs
    if not beliefs:
        raise ValueError("beliefs: got a start alone, expected one or more observations")
    rank = max(belief.s.ndim for belief in beliefs)

    def joined(parts):
        if isinstance(parts[0], Gain):
            return Gain(*map(joined, zip(*(part._replace(memory=None) for part in parts),
                                         strict=True)))  # fmt: skip
        if parts[0] is None:
            return None
        parts = torch.broadcast_tensors(*parts)
        return torch.stack([p.reshape(*[1] * (rank - p.ndim), *p.shape) for p in parts])

    fields = zip(*(belief._replace(memory=None) for belief in beliefs), strict=True)
    return Belief(*map(joined, fields))


def log_likelihood(beliefs):
    """log p(x_1, ..., x_T), (...): Σ_t log N(ν_t; 0, S_t) over the innovations of a `history`.

    Entries that were not seen do not count. Differentiable in all that the model is made of.
    """
    v, S = beliefs.innovation, beliefs.gain.S
    terms = (v * torch.linalg.solve(S, v)).sum((-2, -1)) + torch.logdet(S)
    count = v.shape[-2] if beliefs.seen is None else beliefs.seen.sum((-2, -1)).to(v)
    return -(terms + count * math.log(2 * math.pi)).sum(0) / 2


def diverged(beliefs, factor=5.0):
    """Whether a trajectory's innovations left what its filter claims, (...): mean NIS over the last
    half of a `history` above `factor` times n, its expectation."""
    v = beliefs.innovation[len(beliefs.innovation) // 2 :]
    S = beliefs.gain.S[len(beliefs.gain.S) // 2 :]
    nis = (v * torch.linalg.solve(S, v)).sum((-2, -1))
    return nis.mean(0) > factor * v.shape[-2]


# ---- Particles ---------------------------------------------------------------------------------


class Cloud(NamedTuple):
    """Weighted mean and covariance of the particles, the particles (..., count, m, 1) after
    resampling, and the effective number of them before it, 1/Σ w²."""

    s: torch.Tensor
    Sigma: torch.Tensor
    points: torch.Tensor
    effective: torch.Tensor


def particle_filter(xs, model, count, start, generator):
    """One Cloud for each observation, the start first: the bootstrap filter.

    Each particle moves by F and a draw of v, is weighted by p(x | s), and systematic resampling
    draws the next ones. xs (T, ..., n, 1); F and H may be functions, R must be positive definite.
    The error falls as 1/sqrt(count). Gordon, Salmond, Smith 1993, doi 10.1049/ip-f-2.1993.0015.
    Raises ValueError or TypeError as `filtered` does, and for a count < 2.
    """
    checked(xs, model, start, missing=False)
    if not isinstance(count, int) or count < 2:
        raise ValueError(f"count: got {count!r}, expected two particles or more")
    *batch, _, _ = xs.shape[1:]
    m, root = model.Q.shape[-1], square_root(model.Q)
    lower = torch.linalg.cholesky(model.R)

    def normal():
        return torch.randn(*batch, count, m, 1, generator=generator, dtype=xs.dtype).to(xs)

    def step(cloud, arriving):
        x, noise, u = arriving
        points = apply(model.F, cloud.points) + root @ noise
        error = x.unsqueeze(-3) - apply(model.H, points)
        error = torch.linalg.solve_triangular(lower, error, upper=False)
        w = (-error.square().sum((-2, -1)) / 2).softmax(-1)
        s, Sigma = moments(points, w)
        index = systematic(w, u)[..., None, None].expand_as(points)
        return Cloud(s, Sigma, points.gather(-3, index), 1 / w.square().sum(-1))

    points = start.s.unsqueeze(-3) + square_root(start.Sigma).unsqueeze(-3) @ normal()
    first = Cloud(start.s, start.Sigma, points, torch.full(batch, float(count)).to(xs))
    arrivals = ((x, normal(), torch.rand(*batch, 1, generator=generator, dtype=xs.dtype).to(xs))
                for x in xs)  # fmt: skip
    return accumulate(arrivals, step, initial=first)


def moments(points, w):
    """Mean and covariance of points (..., count, m, 1) with weights (..., count)."""
    w = w[..., None, None]
    mean = (w * points).sum(-3)
    d = points - mean.unsqueeze(-3)
    return mean, (w * d @ d.mT).sum(-3)


def systematic(w, u):
    """Indices (..., count): each particle is taken count · w times, rounded up or down.

    w (..., count) are weights that sum to one, u (..., 1) one uniform draw for all positions.
    """
    count = w.shape[-1]
    positions = (torch.arange(count, dtype=w.dtype, device=w.device) + u) / count
    return torch.searchsorted(w.cumsum(-1), positions).clamp(max=count - 1)


# ---- Checks ------------------------------------------------------------------------------------


def checked(xs, model, start, missing):
    """Raise the error that names what is wrong with observations, model or start."""
    if not isinstance(xs, torch.Tensor) or not xs.is_floating_point():
        came = xs.dtype if isinstance(xs, torch.Tensor) else type(xs).__name__
        raise TypeError(f"xs: got {came}, expected a tensor of real floats")
    checked_model(model)
    m, n = model.Q.shape[-1], model.R.shape[-1]
    if xs.ndim < 3 or xs.shape[-2:] != (n, 1) or len(xs) == 0:
        raise ValueError(
            f"xs: got shape {tuple(xs.shape)}, expected (T, ..., {n}, 1) to fit R, and T ≥ 1"
        )
    suspect = not math.isfinite(xs.sum().item())  # the sum is six times faster than all of them
    if suspect and not (xs if not missing else xs.nan_to_num(0.0, torch.inf)).isfinite().all():
        more = "" if missing else "; if a NaN means not seen, say missing=True"
        raise ValueError(f"xs: got NaN or Inf, expected finite observations{more}")
    if start.s.shape[-2:] != (m, 1) or not start.s.isfinite().all():
        raise ValueError(
            f"start.s: got shape {tuple(start.s.shape)}, expected finite columns (..., {m}, 1)"
        )
    if start.Sigma is not None:
        checked_covariance("start.Sigma", start.Sigma, m)
    for name, value in (("start.s", start.s), ("start.Sigma", start.Sigma), ("Q", model.Q)):
        if value is not None and (value.dtype != xs.dtype or value.device != xs.device):
            came, wanted = (f"{v.dtype} on {v.device}" for v in (value, xs))
            raise TypeError(f"{name}: got {came}, expected what xs has, {wanted}")


def checked_model(model):
    """Raise the error that names what is wrong with a model."""
    if not isinstance(model, Model):
        raise TypeError(f"model: got {type(model).__name__}, expected a Model(F, H, Q, R)")
    for name in ("Q", "R"):
        checked_covariance(name, getattr(model, name))
    m, n = model.Q.shape[-1], model.R.shape[-1]
    for name, shape in (("F", (m, m)), ("H", (n, m))):
        matrix = getattr(model, name)
        if isinstance(matrix, torch.Tensor) and matrix.shape[-2:] != shape:
            raise ValueError(
                f"{name}: got shape {tuple(matrix.shape)}, expected {shape} to fit Q and R"
            )
    for name in ("F", "H", "R"):
        matrix = getattr(model, name)
        if isinstance(matrix, torch.Tensor) and matrix.dtype != model.Q.dtype:
            raise TypeError(f"{name}: got {matrix.dtype}, expected what Q has, {model.Q.dtype}")


def checked_covariance(name, Sigma, size=None):
    """Raise an error unless Sigma is symmetric, without negative eigenvalues, and fits."""
    if not isinstance(Sigma, torch.Tensor):
        raise TypeError(f"{name}: got {type(Sigma).__name__}, expected a covariance matrix")
    wanted = 2 * (size or Sigma.shape[-1:].numel(),)
    if Sigma.ndim < 2 or Sigma.shape[-2:] != wanted:
        raise ValueError(f"{name}: got shape {tuple(Sigma.shape)}, expected a matrix {wanted}")
    Sigma = Sigma.detach()
    scale = Sigma.abs().max()
    slack = 100 * torch.finfo(Sigma.dtype).eps * scale
    if not scale.isfinite() or (Sigma - Sigma.mT).abs().max() > slack:
        raise ValueError(f"{name}: got a matrix that is not symmetric or not finite")
    least = torch.linalg.eigvalsh(Sigma).min()
    if least < -slack:
        raise ValueError(
            f"{name}: got a matrix with the eigenvalue {least:.3g}, expected a covariance: none "
            "below 0"
        )
