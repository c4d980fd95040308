"""Tracking: a hidden state moves, noisy observations of it arrive (chapters 09, 10).

s_t = F(s_{t−1}) + v_t, x_t = H(s_t) + w_t. One filter, folded over the observations, with a slot
for its gain. Sources: Shlezinger, Eldar, Boyd 2022, "Model-Based Deep Learning: On the Intersection
of Deep Learning and Optimization", doi 10.1109/ACCESS.2022.3218802, Examples 6, 8, 13, (7)-(12);
Shlezinger, Whang, Eldar, Dimakis 2023, doi 10.1109/JPROC.2023.3247480, (33).

`problem` (models, trajectories, scores), `algorithm` (the filter, its likelihood, particles),
`parts` (what fills the slot: `riccati` is the Kalman filter; learned noise statistics),
`networks` (KalmanNet, Split-KalmanNet and a black box).
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
from .networks import (
    RNN,
    Features,
    Filter,
    Given,
    KalmanNet,
    OneGRU,
    SplitGRUs,
    ThreeGRUs,
    compressed,
    innovation_error,
    recovered,
    state_error,
    unit,
    windows,
)
from .parts import (
    Covariance,
    LearnedNoise,
    extended,
    fitting,
    linearised,
    riccati,
    robust,
    steady,
    switching,
    unscented,
)
from .problem import (
    Model,
    Noise,
    attractor,
    canonical,
    chain,
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
    spots,
    white,
)

__all__ = [
    "RNN", "Belief", "Cloud", "Covariance", "Features", "Filter", "Gain", "Given", "KalmanNet",
    "LearnedNoise", "Model", "Noise", "OneGRU", "SplitGRUs", "ThreeGRUs", "attractor", "canonical",
    "chain", "compressed", "constant_acceleration", "constant_velocity", "diverged", "extended",
    "filtered", "fitting", "history", "innovation_error", "linearised", "log_likelihood", "lorenz",
    "mse_db", "nees", "nis", "particle_filter", "pendulum", "recovered", "riccati", "robust",
    "rotation", "runge_kutta", "simulated", "spots", "state_error", "steady", "switching",
    "systematic", "unit", "unscented", "white", "windows",
]  # fmt: skip
