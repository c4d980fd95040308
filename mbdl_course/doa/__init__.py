"""Directions of arrival: plane waves reach an array of sensors, at which angles? (chapter 13)

x = H(φ) s + w. One chain, snapshots → covariance → subspace → angles, each link a slot. Sources:
Shlezinger, Eldar 2023, "Model-Based Deep Learning", doi 10.1561/2000000113 (its running example);
Shmuel, Merkofer, Revach, van Sloun, Shlezinger 2023, "SubspaceNet", arXiv 2306.02271.

`problem` (arrays, scenes, the score of an estimate, Cramér-Rao bounds), `algorithm` (beamformer,
MVDR, MUSIC, Root-MUSIC, ESPRIT, maximum likelihood, the number of sources), `parts` (what fills the
slots: covariances, the signal subspace), `networks` (SubspaceNet, deep augmented MUSIC, a black
box).
"""

from .algorithm import (
    aic,
    beamformer,
    calibrated,
    directions,
    esprit,
    estimated,
    inverse,
    maximum_likelihood,
    mdl,
    minima,
    music,
    mvdr,
    noise_projector,
    parabola,
    root_music,
    spectrum,
)
from .networks import (
    AntiRectifier,
    CovarianceCNN,
    DeepAugmentedMUSIC,
    Dense,
    EncoderDecoder,
    LeakyReLU,
    SubspaceNet,
    through,
)
from .parts import forward_backward, lagged, sample_covariance, signal_subspace, smoothed
from .problem import (
    Array,
    Scenes,
    coloured,
    deterministic_bound,
    disturbed,
    doa_error,
    mean_rmspe,
    mixing,
    narrowband,
    observed,
    rmspe,
    scenes,
    steering,
    stochastic_bound,
    subarray,
    uniform_linear,
)

__all__ = [
    "AntiRectifier", "Array", "CovarianceCNN", "DeepAugmentedMUSIC", "Dense", "EncoderDecoder",
    "LeakyReLU", "Scenes", "SubspaceNet", "aic", "beamformer", "calibrated", "coloured",
    "deterministic_bound", "directions", "disturbed", "doa_error", "esprit", "estimated",
    "forward_backward", "inverse", "lagged", "maximum_likelihood", "mdl", "mean_rmspe", "minima",
    "mixing", "music", "mvdr", "narrowband", "noise_projector", "observed", "parabola", "rmspe",
    "root_music", "sample_covariance", "scenes", "signal_subspace", "smoothed", "spectrum",
    "steering", "stochastic_bound", "subarray", "through", "uniform_linear",
]  # fmt: skip
