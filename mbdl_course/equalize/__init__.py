"""Channels with memory: symbols arrive mixed with those before them, which were sent? (chapter 15)

x_t depends on the last few symbols: a state of a trellis. One step folded over log-likelihoods, the
best path (Viterbi) or all of them (BCJR), with a slot for who answers the log-likelihoods. Sources:
Shlezinger, Whang, Eldar, Dimakis 2023, "Model-Based Deep Learning", doi 10.1109/JPROC.2023.3247480,
section V-B, (23)-(32); Shlezinger, Farsad, Eldar, Goldsmith 2020, "ViterbiNet", doi
10.1109/TWC.2020.2972352.

`problem` (channels, taps, error rates), `algorithm` (Viterbi, BCJR), `parts` (what fills the slot:
the channel's own law, least squares, a Gaussian for each state), `networks` (ViterbiNet, which in
`bcjr` is BCJRNet, and a black box), `coding` (a code that says whether it succeeded, and receivers
that adapt where it did), `decoding` (belief propagation with weights).
"""

from .algorithm import Path, Posterior, Survivors, bcjr, survivors, traced, viterbi
from .coding import Code, Heard, Linear, adapting, hamming_crc, kept, retrained, tracked
from .decoding import bch_63_45, belief_propagation, bit_error, noisy_words, zero_words
from .networks import (
    Classifier,
    SlidingRNN,
    ViterbiNet,
    classifier_for,
    cross_entropy,
    pilots,
    windows,
)
from .parts import (
    ByState,
    LeftOver,
    by_state,
    channel_likelihood,
    learned_transitions,
    least_squares,
    left_over,
    medians,
)
from .problem import (
    BPSK,
    ON_OFF,
    PROFILES,
    Law,
    Rate,
    Sent,
    disturbed,
    exponential,
    fading,
    gaussian,
    heavy_tailed,
    loaded,
    outputs,
    poisson,
    profile,
    received,
    recent,
    saturated,
    sent,
    ser,
    states_of,
)

__all__ = [
    "BPSK", "ByState", "Classifier", "Code", "Heard", "Law", "LeftOver", "Linear", "ON_OFF",
    "PROFILES", "Path", "Posterior", "Rate", "Sent", "SlidingRNN", "Survivors", "ViterbiNet",
    "adapting", "bch_63_45", "bcjr", "belief_propagation", "bit_error", "by_state",
    "channel_likelihood", "classifier_for", "cross_entropy", "disturbed", "exponential", "fading",
    "gaussian", "hamming_crc", "heavy_tailed", "kept", "learned_transitions", "least_squares",
    "left_over", "loaded", "medians", "noisy_words", "outputs", "pilots", "poisson", "profile",
    "received", "recent", "retrained", "saturated", "sent", "ser", "states_of", "survivors",
    "traced", "tracked", "viterbi", "windows", "zero_words",
]  # fmt: skip
