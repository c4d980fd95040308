"""Sparse recovery: find s with few non-zeros from x = H s + w (chapters 03, 04 and 05).

The objective is always ½‖x − Hs‖² + ρ‖s‖₁, (14) in Shlezinger, Eldar, Boyd 2022,
"Model-Based Deep Learning: On the Intersection of Deep Learning and Optimization",
doi 10.1109/ACCESS.2022.3218802, whose equation numbers are the ones cited where no other is named.

`problem` (data, objective, oracle), `algorithm` (the steps), `parts` (what fills their slots),
`networks` (an algorithm, a learned part, and the values to start from).
"""

from .algorithm import (
    Coordinates,
    Momentum,
    Split,
    admm,
    coordinate_descent,
    fista,
    greedy_descent,
    iht,
    ista,
)
from .networks import ALISTA, LISTA, LISTA_CP, UnfoldedADMM, support_schedule
from .parts import (
    analytic_weights,
    coupled,
    filters,
    gradient,
    gram,
    learned_gram,
    lipschitz,
    matrices,
    ridge,
    with_back,
)
from .problem import (
    checked,
    coherence,
    gaussian_matrix,
    kkt_residual,
    lasso,
    least_squares_on,
    observed,
    sparse_signals,
    transition,
)

__all__ = [
    "ALISTA", "Coordinates", "LISTA", "LISTA_CP", "Momentum", "Split", "UnfoldedADMM", "admm",
    "analytic_weights", "checked", "coherence", "coordinate_descent", "coupled", "filters",
    "fista", "gaussian_matrix", "gradient", "gram", "greedy_descent", "iht", "ista",
    "kkt_residual", "lasso", "learned_gram", "least_squares_on", "lipschitz", "matrices",
    "observed", "ridge", "sparse_signals", "transition", "support_schedule", "with_back",
]  # fmt: skip
