"""Low rank plus sparse: separate X = H1 L + H2 S + W, movies as matrices (chapter 06).

The objective is ½‖X − H1 L − H2 S‖² + ρ_L‖L‖_* + ρ_S‖S‖₁,₂. Sources: Shlezinger, Whang, Eldar,
Dimakis 2023, "Model-Based Deep Learning", doi 10.1109/JPROC.2023.3247480, (9)-(13); Monga, Li,
Eldar 2021, "Algorithm Unrolling", doi 10.1109/MSP.2020.3016905, (16)-(18); the original is Solomon
et al. 2020, "Deep Unfolded Robust PCA with Application to Clutter Suppression in Ultrasound", doi
10.1109/TMI.2019.2941271.

`problem` (movies, objective), `algorithm` (the steps), `parts` (what fills their slot), `networks`
(an algorithm, a learned part, and the values to start from; a black box).
"""

from .algorithm import Momentum, fista, ista, shrink, svd_filter
from .networks import CORONA, Both, MovieCNN
from .parts import convolutions, convolved, gradient, lipschitz
from .problem import (
    Parts,
    casorati,
    frames_of,
    observed,
    operators,
    projection_db,
    robust_pca,
    separation_db,
    street,
    ultrasound,
    white,
)

__all__ = [
    "CORONA", "Both", "Momentum", "MovieCNN", "Parts", "casorati", "convolutions", "convolved",
    "fista", "frames_of", "gradient", "ista", "lipschitz", "observed", "operators", "projection_db",
    "robust_pca", "separation_db", "shrink", "street", "svd_filter", "ultrasound", "white",
]  # fmt: skip
