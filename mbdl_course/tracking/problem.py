"""The problem: state-space models, independent trajectories of them, and scores of an estimate."""

import math
from functools import cache, partial
from itertools import accumulate, repeat
from typing import Any, NamedTuple

import torch

from mbdl_course.euler import rk4
from mbdl_course.fold import last


class Model(NamedTuple):
    """s_t = F(s_{t−1}) + v_t, x_t = H(s_t) + w_t, v ~ N(0, Q), w ~ N(0, R), independent in time.

    F and H are matrices (m, m), (n, m), or functions of columns (..., m, 1) that broadcast over
    leading dimensions; Q (m, m) and R (n, n) are covariances: variances, not standard deviations.
    (33) in Shlezinger, Whang, Eldar, Dimakis 2023, doi 10.1109/JPROC.2023.3247480; (7) without
    control in Shlezinger, Eldar, Boyd 2022, doi 10.1109/ACCESS.2022.3218802.
    """

    F: Any
    H: Any
    Q: torch.Tensor
    R: torch.Tensor


def apply(f, s):
    """F s of a matrix, F(s) of a function."""
    return f @ s if isinstance(f, torch.Tensor) else f(s)


# ---- Models ------------------------------------------------------------------------------------


def constant_velocity(dt, q2, r2, dtype=torch.float64):
    """Position and velocity, the position observed: F = [1 dt; 0 1], H = [1 0], R = r2.

    A random acceleration of variance q2 acts during each step: Q = q2 g gᵀ, g = (dt²/2, dt), of
    rank one.
    """
    return kinematic(2, dt, [dt**2 / 2, dt], q2, r2, dtype)


def constant_acceleration(dt, q2, r2, dtype=torch.float64):
    """Position, velocity, acceleration, the position observed; white jerk of intensity q2.

    Q = q2 ∫ g(τ) g(τ)ᵀ dτ over a step, g = (τ²/2, τ, 1).
    """
    model = kinematic(3, dt, [0.0] * 3, 0.0, r2, dtype)
    Q = [[dt**5 / 20, dt**4 / 8, dt**3 / 6], [dt**4 / 8, dt**3 / 3, dt**2 / 2],
         [dt**3 / 6, dt**2 / 2, dt]]  # fmt: skip
    return model._replace(Q=q2 * torch.tensor(Q, dtype=dtype))


def kinematic(order, dt, push, variance, r2, dtype):
    F = [[dt ** (j - i) / math.factorial(j - i) if j >= i else 0.0 for j in range(order)]
         for i in range(order)]  # fmt: skip
    push = torch.tensor(push, dtype=dtype)[:, None]
    H = torch.eye(order, dtype=dtype)[:1]
    return Model(torch.tensor(F, dtype=dtype), H, variance * push @ push.mT, covariance(r2, H))


def canonical(size, q2, r2, dtype=torch.float64):
    """F = I with a first row of ones; H = I for two states, else the anti-diagonal with that row.

    The linear model of Revach et al. 2022, "KalmanNet", doi 10.1109/TSP.2022.3158588.
    """
    F = torch.eye(size, dtype=dtype)
    F[0] = 1
    H = torch.eye(size, dtype=dtype)
    if size > 2:
        H = H.flip(0)
        H[0] = 1
    return Model(F, H, covariance(q2, F), covariance(r2, H))


def pendulum(dt, q2, r2, damping=0.2, dtype=torch.float64):
    """Angle and angular speed, dω/dt = −sin φ − damping ω; the horizontal position sin φ is seen.

    Time in units of sqrt(length/g); one Runge-Kutta step for each observation. Q = q2 diag(0, dt).
    """

    def field(s):
        angle, speed = s.split(1, dim=-2)
        return torch.cat([speed, -angle.sin() - damping * speed], dim=-2)

    Q = q2 * torch.diag(torch.tensor([0.0, dt], dtype=dtype))
    R = torch.full((1, 1), r2, dtype=dtype)
    return Model(runge_kutta(field, dt), lambda s: s[..., :1, :].sin(), Q, R)


def lorenz(dt, q2, r2, order=None, substeps=1, dtype=torch.float64):
    """The Lorenz attractor ds/dt = A(s) s, all three states observed, Q = q2 I, R = r2 I, H = I.

    order=None: `substeps` Runge-Kutta steps for each observation. order=J: s ← F_J(s) s with
    F_J(s) = Σ_{j ≤ J} (A(s) dt)^j / j!, the published model, where s_2 and s_3 stand in the first
    column of A. It holds A(s) fixed during dt, so its error over a step stays of order dt²,
    whatever J is.
    """
    if order is not None and (not isinstance(order, int) or order < 1):
        raise ValueError(f"order: got {order!r}, expected a whole number, 1 or more, or None")
    fixed = torch.tensor([[-10, 10, 0], [28, -1, 0], [0, 0, -8 / 3]], dtype=dtype)
    turn = torch.tensor(
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=dtype
    )  # A(s) = fixed + turn s e₁ᵀ

    @cache  # one copy to a device, not one in each step
    def at(device, dtype):
        return fixed.to(device, dtype), turn.to(device, dtype)

    def field(s):
        fixed, turn = at(s.device, s.dtype)
        return fixed @ s + s[..., :1, :] * (turn @ s)

    def taylor(s):
        fixed, turn = at(s.device, s.dtype)
        slope, term, total = turn @ s, s, s
        for j in range(1, order + 1):
            term = (fixed @ term + slope * term[..., :1, :]) * (dt / j)
            total = total + term
        return total

    eye = torch.eye(3, dtype=dtype)
    step = runge_kutta(field, dt, substeps) if order is None else taylor
    return Model(step, eye, q2 * eye, r2 * eye)


def runge_kutta(field, dt, substeps=1):
    """The function s ↦ s(dt later) of ds/dt = field(s), by classical Runge-Kutta steps."""
    if not isinstance(substeps, int) or substeps < 1:
        raise ValueError(f"substeps: got {substeps!r}, expected a whole number, 1 or more")
    h = dt / substeps
    return lambda s: last(accumulate(repeat(h, substeps), partial(rk4, field), initial=s))


def rotation(degrees, size=2, dtype=torch.float64):
    """A rotation by so many degrees in the plane of the first two states; in all three planes, one
    after the other, for three states. `F @ rotation(10)` or `H @ rotation(10)` is a mismatch."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = torch.eye(size, dtype=dtype)
    for i, j in [(0, 1), (0, 2), (1, 2)] if size == 3 else [(0, 1)]:
        plane = torch.eye(size, dtype=dtype)
        plane[i, i], plane[i, j], plane[j, i], plane[j, j] = c, -s, s, c
        turned = turned @ plane
    return turned


def covariance(variance, like):
    """A variance times the identity, as large as the number of rows of `like`."""
    return variance * torch.eye(like.shape[0]).to(like)


# ---- Trajectories ------------------------------------------------------------------------------


class Noise(NamedTuple):
    """Standard normal draws: for the initial state, and for v and w, (horizon, count, ·, 1)."""

    start: torch.Tensor
    v: torch.Tensor
    w: torch.Tensor


def white(horizon, count, model, generator):
    """The Noise of `count` independent trajectories of a model, horizon ≥ 1."""
    for name, value in (("horizon", horizon), ("count", count)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}, expected a whole number, 1 or more")
    m, n = model.Q.shape[-1], model.R.shape[-1]
    kind = {"generator": generator, "dtype": model.Q.dtype}
    start, v = torch.randn(count, m, 1, **kind), torch.randn(horizon, count, m, 1, **kind)
    return Noise(start, v, torch.randn(horizon, count, n, 1, **kind))


def simulated(model, start, noise):
    """(x, s): observations (T, count, n, 1) and states (T, count, m, 1), each from its own start.

    start: anything with s and Sigma, of the state before the first step. The same noise at other
    settings is the same draw, scaled.
    """
    root, s0 = square_root(model.Q), start.s + square_root(start.Sigma) @ noise.start
    s = torch.stack([*accumulate(noise.v, lambda s, v: apply(model.F, s) + root @ v, initial=s0)])
    x = apply(model.H, s[1:]) + square_root(model.R) @ noise.w
    return x, s[1:]


def chain(horizon, count, modes, stay, generator):
    """Which of `modes` holds, (horizon, count), whole numbers: a Markov chain that stays with this
    probability, else jumps to another, all alike; the first is any. Noise that changes is
    `noise._replace(w=deviations[chain(...)][..., None, None] * noise.w)`."""
    if not isinstance(modes, int) or modes < 2 or not 0 <= stay <= 1:
        raise ValueError(f"modes, stay: got {modes!r}, {stay!r}, expected 2 or more, and [0, 1]")
    first = torch.randint(modes, (1, count), generator=generator)
    jumps = torch.rand(horizon - 1, count, generator=generator) >= stay
    by = torch.randint(1, modes, (horizon - 1, count), generator=generator)
    return torch.cat([first, jumps * by]).cumsum(0) % modes


def spots(p, size=12, width=0.5, span=3.0):
    """Images (..., size, size) of a bright spot at each p (..., 2, 1), row and column.

    exp(−d²/(2 width²)) at distance d from p, on pixels from −span to span both ways.
    """
    grid = torch.linspace(-span, span, size).to(p)
    row, column = ((-((grid - at) ** 2) / (2 * width**2)).exp() for at in p.unbind(-2))
    return row[..., None] * column[..., None, :]


def attractor(count, generator, dtype=torch.float64):
    """Independent states (count, 3, 1) on the Lorenz attractor: 15 time units after random ones."""
    flow = lorenz(0.01, 0.0, 0.0, dtype=dtype).F
    s = torch.randn(count, 3, 1, generator=generator, dtype=dtype)
    s = s * 8 + torch.tensor([0.0, 0.0, 25.0], dtype=dtype)[:, None]
    for _ in range(1500):
        s = flow(s)
    return s


def square_root(Sigma):
    """A matrix A with A Aᵀ = Σ, for a singular Σ too."""
    values, vectors = torch.linalg.eigh(Sigma)
    return vectors * values.clamp(min=0).sqrt()[..., None, :]


# ---- Scores ------------------------------------------------------------------------------------


def mse_db(s_hat, s):
    """10 log10 of the squared error averaged over states, time and trajectories: not relative."""
    return 10 * (s_hat - s).square().mean().log10()


def nees(s_hat, Sigma, s):
    """(s − ŝ)ᵀ Σ⁻¹ (s − ŝ), (...): m on average if the claimed covariance Σ is right."""
    error = s - s_hat
    return (error * torch.linalg.solve(Sigma, error)).sum((-2, -1))


def nis(beliefs):
    """νᵀ S⁻¹ ν of the innovations ν, (T, ...): n on average, where all is seen, if the model is
    right. `beliefs` is a `history`; this needs no truth."""
    v = beliefs.innovation
    return (v * torch.linalg.solve(beliefs.gain.S, v)).sum((-2, -1))
