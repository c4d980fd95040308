"""The filling law: a learned method, filled with the model's own part, is the classical method.

One line per method, state by state, in float64. A method without its line here is not done.
"""

from itertools import islice, repeat

import pytest
import torch

from mbdl_course import doa, equalize, lowrank, mimo, smoothing, tracking
from mbdl_course.fold import estimate
from mbdl_course.prox import keep_largest
from mbdl_course.sparse import (
    ALISTA,
    LISTA,
    LISTA_CP,
    UnfoldedADMM,
    admm,
    fista,
    gaussian_matrix,
    greedy_descent,
    iht,
    ista,
    learned_gram,
    lipschitz,
    matrices,
    observed,
    sparse_signals,
)
from mbdl_course.unfold import Fixed, Thetas, Unfolded

g = torch.Generator().manual_seed(1)
H = gaussian_matrix(30, 60, g)
S = sparse_signals(7, 60, g, sparsity=4)
X = observed(S, H, torch.randn(7, 30, 1, generator=g, dtype=torch.float64), snr_db=20)
MU, RHO, LAM, K = 1 / lipschitz(H).item(), 0.03, 0.07, 12
D = torch.float64
T = [1.0]  # FISTA's counter, to tell a learned momentum where to start
for _ in range(K):
    T.append((1 + (1 + 4 * T[-1] ** 2) ** 0.5) / 2)
MOMENTUM = [torch.tensor([(a - 1) / b], dtype=D) for a, b in zip(T, T[1:], strict=False)]
STEP = (MU * H.mT, torch.eye(60, dtype=D) - MU * H.mT @ H)
GRAM = torch.eye(60, dtype=D) - H.mT @ H

# name -> (the method at its initialisation, the classical method)
FILLINGS = {
    "learned ISTA (tied θ)": (
        Unfolded(ista, Thetas((MU, RHO), K, tied=True, dtype=D), H=H), ista(X, H, repeat((MU, RHO)))
    ),
    "unfolded ISTA (θ per layer)": (
        Unfolded(ista, Thetas((MU, RHO), K, dtype=D), H=H), ista(X, H, repeat((MU, RHO)))
    ),
    "unfolded FISTA": (
        Unfolded(fista, Thetas((MU, RHO), K, dtype=D), H=H), fista(X, H, repeat((MU, RHO)))
    ),
    "LISTA": (LISTA(H, (MU, RHO), K), ista(X, H, repeat((MU, RHO)))),
    "LISTA-CP": (LISTA_CP(H, (MU, RHO), K), ista(X, H, repeat((MU, RHO)))),
    "LISTA-CPSS without support": (
        LISTA_CP(H, (MU, RHO), K, kept=[0] * K), ista(X, H, repeat((MU, RHO)))
    ),
    "ALISTA with H for B": (ALISTA(H, (MU, RHO), K, back=H), ista(X, H, repeat((MU, RHO)))),
    "unfolded FISTA, learned momentum": (
        Unfolded(fista, Thetas([(MU, RHO, g) for g in MOMENTUM], dtype=D), H=H),
        fista(X, H, repeat((MU, RHO))),
    ),
    "unrolled IHT": (
        Unfolded(ista, Thetas((*STEP, Fixed(4)), K, dtype=D), H=H, part=matrices,
                 shrink=keep_largest),
        iht(X, H, repeat((MU, 4))),
    ),
    "learned greedy coordinate descent": (
        Unfolded(greedy_descent, Thetas((GRAM, RHO), K, tied=(0,), dtype=D), H=H,
                 part=learned_gram),
        greedy_descent(X, H, repeat(RHO)),
    ),
    "LISTA, shared matrices": (LISTA(H, (MU, RHO), K, tied=(0, 1)), ista(X, H, repeat((MU, RHO)))),
    "learned ADMM (tied θ)": (
        Unfolded(admm, Thetas((LAM, 1.0, RHO), K, tied=True, dtype=D), H=H),
        admm(X, H, repeat((LAM, 1.0, RHO))),
    ),
    "unfolded ADMM (θ per layer)": (
        Unfolded(admm, Thetas((LAM, 1.0, RHO), K, dtype=D), H=H),
        admm(X, H, repeat((LAM, 1.0, RHO))),
    ),
    "unfolded ADMM (W1, W2 per layer)": (
        UnfoldedADMM(H, (LAM, 1.0, RHO), K), admm(X, H, repeat((LAM, 1.0, RHO)))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILLINGS)
def test_filled_with_the_model_it_is_the_classical_method(name):
    network, classical = FILLINGS[name]
    learned = list(network.states(X))
    assert len(learned) == K + 1
    for ours, theirs in zip(learned, islice(classical, K + 1), strict=True):
        fields = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
        for a, b in fields:
            torch.testing.assert_close(
                torch.as_tensor(a), torch.as_tensor(b), atol=1e-12, rtol=0, check_dtype=False
            )


def test_a_wrong_filling_is_noticed():
    wrong = Unfolded(ista, Thetas((MU, RHO * 1.01), K, dtype=D), H=H)
    a, b = list(wrong.states(X))[-1], list(islice(ista(X, H, repeat((MU, RHO))), K + 1))[-1]
    assert (a - b).abs().max() > 1e-6


# ---- Low rank plus sparse: the state is a pair, the observation a movie -------------------------

C = torch.complex128
PARTS = lowrank.ultrasound(2, g, 8, 5, dtype=C)
BLUR = torch.randn(3, 3, generator=g, dtype=C) / 5
UNIT = torch.eye(64, dtype=C)
BLURRED = (None, lowrank.convolved(torch.stack([BLUR.real, BLUR.imag])[None, None], [UNIT], 8)[0])
MOVIE, _ = lowrank.observed(PARTS, lowrank.white(2, g, 8, 5, dtype=C), 5.0, 20.0)
THETA = (0.4, 0.2, 0.5)

SEPARATIONS = {
    "learned ISTA (tied θ)": (
        Unfolded(lowrank.ista, Thetas(THETA, K, tied=True, dtype=D)),
        lowrank.ista(MOVIE, None, repeat(THETA)),
    ),
    "unfolded ISTA (θ per layer)": (
        Unfolded(lowrank.ista, Thetas(THETA, K, dtype=D)), lowrank.ista(MOVIE, None, repeat(THETA))
    ),
    "unfolded FISTA (θ per layer)": (
        Unfolded(lowrank.fista, Thetas(THETA, K, dtype=D)),
        lowrank.fista(MOVIE, None, repeat(THETA)),
    ),
    "CORONA": (lowrank.CORONA(THETA, K, 8, dtype=C), lowrank.ista(MOVIE, None, repeat(THETA))),
    "CORONA, point-spread function": (
        lowrank.CORONA(THETA, K, 8, psf=BLUR, dtype=C), lowrank.ista(MOVIE, BLURRED, repeat(THETA))
    ),
    "CORONA, real movies": (
        lowrank.CORONA(THETA, K, 8, dtype=D), lowrank.ista(MOVIE.real, None, repeat(THETA))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEPARATIONS)
def test_filled_with_the_model_it_separates_as_the_classical_method(name):
    network, classical = SEPARATIONS[name]
    learned = list(network.states(MOVIE.real if "real" in name else MOVIE))
    assert len(learned) == K + 1
    for ours, theirs in zip(learned, islice(classical, K + 1), strict=True):
        for a, b in zip(ours[:2], theirs[:2], strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


# ---- Tracking: the slot is the gain, observations arrive ----------------------------------------

WALK = tracking.constant_velocity(0.1, 0.25, 4.0)
BEGIN = tracking.Belief(torch.zeros(2, 1, dtype=D), torch.eye(2, dtype=D))
SEEN, _ = tracking.simulated(WALK, BEGIN, tracking.white(K, 5, WALK, g))
FULL = WALK._replace(Q=WALK.Q + 0.01 * torch.eye(2, dtype=D))  # a learned covariance is definite
KALMAN = list(tracking.filtered(SEEN, FULL, tracking.riccati(FULL), BEGIN))


def replayed(belief, x, seen=None):
    """A gain that is only told the Kalman filter's numbers, as a network would be."""
    count = (belief.memory or 0) + 1
    s = FULL.F @ belief.s
    return tracking.Gain(KALMAN[count].gain.K, s, FULL.H @ s, memory=count)


KALMAN_GAIN = tracking.riccati(FULL)


def of_riccati(features, H, Sigma):
    """A gain network that is the model's own recursion; its hidden state is the covariance."""
    before = FULL.F @ (BEGIN.Sigma if Sigma is None else Sigma) @ FULL.F.mT + FULL.Q
    K = torch.linalg.solve(H @ before @ H.mT + FULL.R, H @ before).mT
    return K.expand(len(features.innovation), *K.shape), before - K @ H @ before


def split(features, H, count):
    """Split-KalmanNet's form K = P Hᵀ W with the model's P = Σ⁻ and W = S⁻¹."""
    g = KALMAN[(count or 0) + 1].gain
    K = g.before @ H.mT @ torch.linalg.inv(g.S)
    return K.expand(len(features.innovation), *K.shape), (count or 0) + 1


as_functions = FULL._replace(F=lambda s: FULL.F @ s, H=lambda s: FULL.H @ s)
TRACKING = {
    "Kalman's gains, replayed": lambda: tracking.filtered(SEEN, FULL, replayed, BEGIN),
    "extended": lambda: tracking.filtered(
        SEEN, as_functions, tracking.extended(as_functions), BEGIN
    ),
    "unscented": lambda: tracking.filtered(
        SEEN, as_functions, tracking.unscented(as_functions), BEGIN
    ),
    "KalmanNet, its network zero": lambda: tracking.filtered(
        SEEN, FULL, tracking.KalmanNet(FULL, tracking.OneGRU(2, 1).double(), KALMAN_GAIN), BEGIN
    ),
    "KalmanNet, three GRUs, zero": lambda: tracking.filtered(
        SEEN, FULL, tracking.KalmanNet(FULL, tracking.ThreeGRUs(2, 1).double(), KALMAN_GAIN), BEGIN
    ),
    "KalmanNet, its network the Riccati recursion": lambda: tracking.filtered(
        SEEN, FULL, tracking.KalmanNet(FULL, of_riccati), BEGIN
    ),
    "Split-KalmanNet, its parts the model's": lambda: tracking.filtered(
        SEEN, FULL, tracking.KalmanNet(FULL, split), BEGIN
    ),
    "identity features": lambda: [
        None,
        *tracking.Filter(FULL, KALMAN_GAIN, BEGIN.Sigma, encoder=torch.nn.Identity())(
            tracking.Given(BEGIN.s, SEEN)
        ).s.unbind(),
    ],
    "learned Q and R": lambda: [None, *tracking.LearnedNoise(FULL, BEGIN)(SEEN).s.unbind()],
}


@pytest.mark.parametrize("name", TRACKING)
def test_filled_with_the_model_it_is_the_kalman_filter(name):
    for ours, theirs in zip(list(TRACKING[name]())[1:], KALMAN[1:], strict=True):
        s = ours if isinstance(ours, torch.Tensor) else ours.s
        torch.testing.assert_close(s, theirs.s, atol=1e-12, rtol=0)


# ---- Smoothing: the slot is the correction of the messages --------------------------------------

GRAPH = smoothing.GraphNetwork(2, 1, 6, generator=g).double()  # it starts at ε = 0


@pytest.mark.parametrize("correction", [smoothing.uncorrected, GRAPH], ids=["none", "graph"])
def test_without_a_correction_it_is_the_plain_smoother(correction):
    ours = smoothing.augmented(SEEN, FULL, repeat(1e-3, K), BEGIN, correction)
    theirs = smoothing.by_gradient(SEEN, FULL, repeat(1e-3, K), BEGIN)
    for state, s in zip(ours, theirs, strict=True):
        torch.testing.assert_close(state.s, s, atol=1e-12, rtol=0)


# ---- Detection: the slot is the decision of a user, or the projection --------------------------

AIR, NOISE = mimo.rayleigh(6, 4, generator=g, dtype=D), 0.3
SENT = mimo.symbols(9, 4, 1, generator=g, dtype=D)
HEARD = AIR @ SENT + NOISE**0.5 * torch.randn(9, 6, 1, generator=g, dtype=D)
RECEIVED = mimo.Received(HEARD, AIR.expand(9, 6, 4), torch.full((9, 1, 1), NOISE, dtype=D))
DETNET = mimo.DetNet(4, K, generator=g).double()
TIED = mimo.DetNet(4, K, generator=g, tied=True).double()


def by_the_model(rows, noise):
    """A network for each user that is told x and the others' e, and is the model's own formula."""
    found = []
    for k in range(4):
        x, e = rows[:, k, :6, None], rows[:, k, 6:, None]
        h, rest = AIR[:, k : k + 1], torch.cat([AIR[:, :k], AIR[:, k + 1 :]], 1)
        Sigma = noise * torch.eye(6, dtype=D) + (rest * (1 - e.square()).mT) @ rest.mT
        found.append(2 * h.mT @ torch.linalg.solve(Sigma, x - rest @ e))
    return torch.cat(found, -2)


SIC = mimo.soft_interference_cancellation
DETECTION = {  # name -> (the method, filled; the classical one)
    "DeepSIC, its networks the model's formula": lambda: (
        SIC(HEARD, None, repeat((NOISE,), K), part=mimo.learned_decision(by_the_model), users=4),
        SIC(HEARD, AIR, repeat((NOISE,), K)),
    ),
    "unfolded SIC, noise variances": lambda: (
        Unfolded(SIC, Thetas((NOISE,), K, dtype=D), H=AIR).states(HEARD),
        SIC(HEARD, AIR, repeat((NOISE,), K)),
    ),
    "DetNet": lambda: (
        DETNET.states(RECEIVED),
        mimo.projected_gradient(HEARD, AIR, zip(DETNET.thetas.schedule(0), strict=True)),
    ),
    "DetNet, tied": lambda: (
        TIED.states(RECEIVED),
        mimo.projected_gradient(HEARD, AIR, zip(TIED.thetas.schedule(0), strict=True)),
    ),
    "OAMP-Net": lambda: (
        mimo.OAMPNet(K).double().states(RECEIVED),
        mimo.oamp(HEARD, AIR, repeat((1.0, 1.0), K), NOISE),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DETECTION)
def test_filled_with_the_model_it_detects_as_the_classical_method(name):
    learned, classical = map(list, DETECTION[name]())
    assert len(learned) == len(classical) == K + 1
    for ours, theirs in zip(learned, classical, strict=True):
        torch.testing.assert_close(estimate(ours), estimate(theirs), atol=1e-9, rtol=0)


def test_subspacenet_that_adds_nothing_is_the_classical_chain():
    array = doa.uniform_linear(6)
    scene = doa.scenes(9, 2, array, 30, torch.Generator().manual_seed(2))
    x = doa.observed(scene, array, 10.0)
    net = doa.SubspaceNet(doa.Dense(6, generator=torch.Generator().manual_seed(3)).double())
    for head in (doa.esprit, doa.root_music, doa.music):
        torch.testing.assert_close(
            doa.estimated(x, 2, net, head), doa.estimated(x, 2, head=head), atol=1e-10, rtol=0
        )


# ---- Channels with memory: the slot is the likelihood of a state --------------------------------

PILOT = equalize.sent(300, (7,), 3, g, dtype=D)
LAW, TAPS = equalize.poisson(20.0), equalize.exponential(0.4, 3, dtype=D)
COUNTS = equalize.received(LAW, TAPS, PILOT)
TRUE = equalize.channel_likelihood(COUNTS, LAW, TAPS)


def bayes(x):
    """The classifier that a network learns to be, by the model: p(state | x), states all alike."""
    return equalize.channel_likelihood(x, LAW, TAPS).log_softmax(-1)


@pytest.mark.parametrize("detect", [equalize.viterbi, equalize.bcjr], ids=["Viterbi", "BCJR"])
def test_filled_with_the_true_posterior_viterbinet_and_bcjrnet_are_their_models(detect):
    ours, theirs = detect(equalize.ViterbiNet(bayes)(COUNTS)), detect(TRUE)
    assert torch.equal(ours.s.argmax(-1) if detect is equalize.bcjr else ours.s,
                       theirs.s.argmax(-1) if detect is equalize.bcjr else theirs.s)  # fmt: skip
    torch.testing.assert_close(ours.states, theirs.states, atol=1e-10, rtol=0)


def test_a_receiver_that_is_kept_adapts_to_nothing():
    code = equalize.hamming_crc(2)
    heard = list(
        equalize.adapting([COUNTS[:30]] * 3, equalize.ViterbiNet(bayes), code, equalize.kept, 3)
    )
    for h in heard[1:]:
        assert torch.equal(h.s, equalize.viterbi(TRUE[:30]).s)


PARITY, NOISY = equalize.bch_63_45(), equalize.zero_words(5, 3.0, g)


@pytest.mark.parametrize("weight", [1.0, torch.ones(432)], ids=["a number", "each edge"])
def test_with_weights_of_one_it_is_belief_propagation(weight):
    network = Unfolded(equalize.belief_propagation, Thetas((weight,), 4, dtype=NOISY.dtype), PARITY)
    classical = equalize.belief_propagation(NOISY, PARITY, repeat(1.0, 4))
    for (ours, _), (theirs, _) in zip(network.states(NOISY), classical, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
