"""A residual network as a solver: s + h f(s) is one Euler step of ds/dt = f(s).

Section IV-C in Monga, Li, Eldar 2021, "Algorithm Unrolling", doi 10.1109/MSP.2020.3016905; Chen,
Rubanova, Bettencourt, Duvenaud 2018, "Neural Ordinary Differential Equations", arXiv 1806.07366.
"""

import math
from itertools import accumulate, repeat

import torch

__all__ = ["euler", "flow", "heun", "pendulum", "refined", "rk4"]


def euler(f, s, h):
    """s + h f(s): a residual layer; the error at a fixed time is O(h)."""
    return s + h * f(s)


def heun(f, s, h):
    """s + h (f(s) + f(s + h f(s)))/2: the trapezoid, predicted by Euler; error O(h²)."""
    a = f(s)
    return s + h / 2 * (a + f(s + h * a))


def rk4(f, s, h):
    """The classical Runge-Kutta step, four values of f: error O(h⁴)."""
    a = f(s)
    b = f(s + h / 2 * a)
    c = f(s + h / 2 * b)
    d = f(s + h * c)
    return s + h / 6 * (a + 2 * b + 2 * c + d)


def flow(s, field, steps, rule=euler):
    """One state for each step size h that arrives, s ← rule(field, s, h), the given s first.

    s (..., m, 1); field maps it to ds/dt of the same shape; steps: an iterable of h, or of θ = (h,)
    as `Thetas` yields them. The slot `rule` is `euler`, `heun` or `rk4`. A residual network of
    depth K is `Unfolded(flow, [h] * K, H=field)`: the field stands in the model's place.
    Raises ValueError unless s is a finite column vector and the field keeps its shape.
    """
    if s.ndim < 2 or s.shape[-1] != 1 or not s.isfinite().all():
        raise ValueError(f"s: got shape {tuple(s.shape)}, expected finite columns (..., m, 1)")
    slope = field(s)
    if slope.shape != s.shape:
        raise ValueError(f"field: got {tuple(slope.shape)}, expected the shape {tuple(s.shape)}")

    def step(s, theta):
        return rule(field, s, theta[0] if isinstance(theta, tuple) else theta)

    return accumulate(steps, step, initial=s)


def refined(time, count):
    """The step sizes that cut `time` into `count` equal parts; ValueError unless both are > 0."""
    if not (time > 0 and isinstance(count, int) and count > 0):
        raise ValueError(f"time, count: got {time!r} and {count!r}, expected positive numbers")
    return repeat(time / count, count)


def pendulum(damping=0.2):
    """ds/dt = (v, −sin φ − damping · v) of a pendulum s = (φ, v): radians, time in √(l/g).

    Raises ValueError unless damping ≥ 0.
    """
    if not 0 <= damping < math.inf:
        raise ValueError(f"damping: got {damping!r}, expected 0 or more")

    def field(s):
        angle, speed = s.split(1, dim=-2)
        return torch.cat([speed, -angle.sin() - damping * speed], dim=-2)

    return field
