"""Tracking: a hidden state moves, noisy observations of it arrive (chapter 09).

s_t = F(s_{t−1}) + v_t, x_t = H(s_t) + w_t. One filter, folded over the observations, with a slot
for its gain. Sources: Shlezinger, Eldar, Boyd 2022, "Model-Based Deep Learning: On the Intersection
of Deep Learning and Optimization", doi 10.1109/ACCESS.2022.3218802, Examples 6, 8, 13, (7)-(12);
Shlezinger, Whang, Eldar, Dimakis 2023, doi 10.1109/JPROC.2023.3247480, (33).

`problem` (models, trajectories, scores), `algorithm` (the filter, its likelihood, particles),
`parts` (what fills the slot: `riccati` is the Kalman filter; learned noise statistics).
"""

from .algorithm import (
    Belief,
    Cloud,
    Gain,
    diverged,
    filtered,
    history,
    log_likelihood,
    particle_filter,
    systematic,
)
from .parts import (
    Covariance,
    LearnedNoise,
    extended,
    fitting,
    linearised,
    riccati,
    steady,
    unscented,
)
from .problem import (
    Model,
    Noise,
    attractor,
    canonical,
    constant_acceleration,
    constant_velocity,
    lorenz,
    mse_db,
    nees,
    nis,
    pendulum,
    rotation,
    runge_kutta,
    simulated,
    white,
)

__all__ = [
    "Belief", "Cloud", "Covariance", "Gain", "LearnedNoise", "Model", "Noise", "attractor",
    "canonical", "constant_acceleration", "constant_velocity", "diverged", "extended", "filtered",
    "fitting", "history", "linearised", "log_likelihood", "lorenz", "mse_db", "nees", "nis",
    "particle_filter", "pendulum", "riccati", "rotation", "runge_kutta", "simulated", "steady",
    "systematic", "unscented", "white",
]  # fmt: skip
