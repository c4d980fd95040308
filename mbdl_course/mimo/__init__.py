"""MIMO detection: users send at once, which symbols were sent? (chapter 14)

x = Hs + w with symbols of ±1, and channels that are not linear. Sources: Shlezinger, Whang, Eldar,
Dimakis 2023, "Model-Based Deep Learning", doi 10.1109/JPROC.2023.3247480, section IV-B, (14)-(18);
Shlezinger, Fu, Eldar 2020, "DeepSIC", doi 10.1109/TWC.2020.3032663; Samuel, Diskin, Wiesel 2019,
"Learning to Detect", doi 10.1109/TSP.2019.2899805; He, Wen, Jin, Li 2018, "A Model-Driven Deep
Learning Network for MIMO Detection", arXiv 1809.09336.

`problem` (channels, draws, error rates), `algorithm` (exhaustive search, linear detectors, soft
interference cancellation, projected gradient, OAMP), `parts` (what fills their slots), `networks`
(DeepSIC, DetNet, OAMP-Net, a black box, and how they are trained).
"""

from .algorithm import (
    Descent,
    Linear,
    least_squares,
    maximum_likelihood,
    mmse,
    oamp,
    per_channel,
    projected_gradient,
    soft_interference_cancellation,
    zero_forcing,
)
from .networks import (
    BlackBox,
    DeepSIC,
    DetNet,
    Layers,
    OAMPNet,
    cross_entropy,
    end_to_end,
    every_layer,
    sequentially,
)
from .parts import (
    box,
    gaussian_decision,
    learned_decision,
    others,
    perceptrons,
    wide_projection,
)
from .problem import (
    GAUSSIAN,
    POISSON,
    SATURATED,
    SQUARE_LAW,
    Channel,
    Rate,
    Received,
    ber,
    candidates,
    counted,
    counts,
    decaying,
    hard,
    qpsk_ser,
    rayleigh,
    real_model,
    symbols,
    uncertain,
    variance,
    wrong,
)

__all__ = [
    "GAUSSIAN", "POISSON", "SATURATED", "SQUARE_LAW", "BlackBox", "Channel", "DeepSIC", "Descent",
    "DetNet", "Layers", "Linear", "OAMPNet", "Rate", "Received", "ber", "box", "candidates",
    "counted", "counts", "cross_entropy", "decaying", "end_to_end", "every_layer",
    "gaussian_decision", "hard", "learned_decision", "least_squares", "maximum_likelihood", "mmse",
    "oamp", "others", "per_channel", "perceptrons", "projected_gradient", "qpsk_ser", "rayleigh",
    "real_model", "sequentially", "soft_interference_cancellation", "symbols", "uncertain",
    "variance", "wide_projection", "wrong", "zero_forcing",
]  # fmt: skip
