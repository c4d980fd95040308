"""Every algorithm and every shipped network on a GPU: the same numbers, and no waiting in a fold.

Data are drawn on the CPU and moved, so that both machines see the same. What a GPU has to send back
before the program goes on, and what is sent to it, are waits: a call may have some, for the checks
of its inputs, but a fold may not have one in each step. So the waits of three and of six steps are
compared. There are two machines. `cuda` is the real one (marked `gpu`, skipped without). The
stand-in needs none: tensors that say they are elsewhere, computed on the CPU. As on a GPU, tensors
of two devices cannot meet in an operation, and it counts the waits.
"""

import copy
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mbdl_course import (
    doa,
    equalize,
    equilibrium,
    euler,
    learn,
    lowrank,
    mimo,
    prox,
    smoothing,
    sparse,
    unfold,
    weights,
)
from mbdl_course import kalman_training as kt
from mbdl_course import networks as nets
from mbdl_course import operators as ops
from mbdl_course import tracking as tr
from mbdl_course.equilibrium import Equilibrium
from mbdl_course.fold import last
from mbdl_course.unfold import Fixed, Thetas, Unfolded

# ---- A machine that is elsewhere, with values ---------------------------------------------------

AWAY = torch.device("meta")  # the one device that every build of torch knows and nobody computes on


class Away(torch.Tensor):
    """A tensor that says it is elsewhere, though its value is here."""

    @staticmethod
    def __new__(cls, value):
        value = value.resolve_conj().resolve_neg()
        shape, kind = value.shape, {"dtype": value.dtype, "device": AWAY}
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, shape, strides=value.stride(), storage_offset=value.storage_offset(), **kind
        )
        tensor.value = value
        return tensor

    is_cuda = property(lambda self: True)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func}: outside of the stand-in")


KEYS, conjugate = torch._C.DispatchKey, torch._C._SetExcludeDispatchKeyGuard
READS = {  # what a GPU answers to the program: a value, or a size that depends on values
    "_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "bincount",
    "_unique2", "repeat_interleave", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd",
    "linalg_eig", "linalg_eigvals", "_linalg_eigvals", "linalg_pinv", "linalg_lstsq",
}  # fmt: skip


class StandIn(TorchDispatchMode):
    """Computes for `Away` tensors, refuses to mix them with others, and notes the waits."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func._schema.name.removeprefix("aten::"), dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        away = any(isinstance(t, Away) for t in tensors)
        here = [t for t in tensors if not isinstance(t, Away)]
        indexing = name in ("index", "index_put", "index_put_", "_index_put_impl_")
        carried = name == "copy_" or indexing  # these take tensors from elsewhere
        if away and any(t.ndim for t in here) and not carried:
            raise RuntimeError(f"{name}: tensors on two devices")
        to = kwargs.get("device")
        if away and (name in READS or carried and any(t.ndim for t in here)):
            self.waits.append(name)
        if away and indexing and any(t.dtype is torch.bool for t in tensors[1:]):
            self.waits.append(name)  # how many entries a mask takes
        if to is not None:
            kwargs["device"] = torch.device("cpu")
            if name == "_to_copy" and (to == AWAY) != away:
                self.waits.append(name)
            away = to == AWAY
        args, kwargs = tree_map(lambda t: t.value if isinstance(t, Away) else t, (args, kwargs))
        with conjugate(KEYS.Conjugate, False), conjugate(KEYS.Negative, False):  # modes leave out
            out = func(*args, **kwargs)
        return tree_map(lambda t: Away(t) if away and isinstance(t, torch.Tensor) else t, out)


class Literals(TorchFunctionMode):
    """torch.tensor([...], device=elsewhere): a meta tensor would have no values."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == AWAY:
            return func(*args, **kwargs | {"device": None}).to(AWAY)
        return func(*args, **kwargs)


@contextmanager
def running(device):
    """A list of the waits on this device, as they come."""
    if device == AWAY:
        swap = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)  # `.to` of modules
        try:
            subclassed = patch("torch.inference_mode", torch.no_grad)  # has no tensor subclasses
            with StandIn() as machine, Literals(), subclassed:
                yield machine.waits
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swap)
    elif device.type == "cuda":
        torch.cuda.synchronize()
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with warnings.catch_warnings(record=True) as waits, exact:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", "called a synchronizing")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield waits
            finally:
                torch.cuda.set_sync_debug_mode("default")
    else:
        yield []


class Place:
    """Moves a case's data: tensors and tuples of them in this dtype, modules on a copy."""

    def __init__(self, device, dtype=torch.float64):
        self.device, self.dtype = device, dtype

    def __call__(self, value):
        if isinstance(value, torch.nn.Module):
            return copy.deepcopy(value)._apply(Place(CPU, self.dtype).tensor).to(self.device)
        if type(value) is tuple:
            return tuple(map(self, value))
        return nets.moved(value, self.tensor)

    def tensor(self, t):
        kind = {True: self.dtype.to_complex(), False: self.dtype}
        floats = t.is_complex() or t.is_floating_point()
        return t.to(self.device, kind[t.is_complex()] if floats else t.dtype)


CPU, CUDA = torch.device("cpu"), torch.device("cuda")
no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
on_gpu = {"marks": [pytest.mark.gpu, no_gpu]}
MACHINES = pytest.mark.parametrize(
    ("device", "dtype"),
    [pytest.param(AWAY, torch.float64, id="stand-in"),
     pytest.param(CUDA, torch.float64, id="cuda", **on_gpu),
     pytest.param(CUDA, torch.float32, id="cuda-float32", **on_gpu)],
)  # fmt: skip


def tensors(value):
    """The tensors of a result: a fold's last state, a module's gradients, tuples of tensors."""
    if isinstance(value, Iterator):
        value = last(value)
    found = []
    nets.moved(tuple(value) if isinstance(value, list) else value, found.append)
    assert found, "no tensor in the result"
    return found


def close(ours, theirs, tolerance):
    """Equal to a tolerance that counts from the largest entry."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        size = b.abs().max().item() if b.is_floating_point() and b.isfinite().all() else 1.0
        torch.testing.assert_close(a, b, atol=tolerance * size, rtol=tolerance, equal_nan=True)


# ---- The cases: to(data) moves it, k is the number of steps; each answers a call to be watched ---

D = torch.float64
g = learn.seeded(0)


def normal(*shape, dtype=D):
    return torch.randn(*shape, generator=g, dtype=dtype)


def shaken(module, size=0.05):
    """The module with noise on its parameters, so that no gradient is zero by its start."""
    with torch.no_grad():
        for p in module.parameters():
            p += size * torch.randn(p.shape, generator=g, dtype=p.dtype)
    return module


def trained(module, data, loss=learn.squared_error):
    """What a module answers, and the gradient of one training step in all its parameters."""
    x, s = data
    for p in module.parameters():
        p.grad = None
    out = module(x)
    loss(out, s).backward()
    return out, [p.grad for p in module.parameters() if p.grad is not None]


# sparse recovery
H = sparse.gaussian_matrix(20, 40, g)
S = sparse.sparse_signals(5, 40, g, sparsity=3)
X = sparse.observed(S, H, normal(5, 20, 1), 20.0)
MU, RHO = 1 / sparse.lipschitz(H).item(), 0.03
THETA, RIDGE = (MU, RHO), (0.07, 1.0, RHO)
PAIR, PAIR_H = (X, S), (X, H)
TURNED = ops.Chain(ops.Mask(torch.arange(0, 36, 2), 36), ops.Separable(normal(6, 6), normal(6, 6)))
GRAM = torch.eye(40, dtype=D) - H.mT @ H
STEP = (MU * H.mT, torch.eye(40, dtype=D) - MU * H.mT @ H)
MOMENTUM = [(MU, RHO, torch.tensor([k / (k + 3)])) for k in range(8)]

# low rank plus sparse
C = torch.complex128
MOVIES = lowrank.observed(lowrank.ultrasound(2, g, 8, 5, dtype=C),
                          lowrank.white(2, g, 8, 5, dtype=C), 5.0, 20.0)  # fmt: skip
BLUR = (None, normal(64, 64, dtype=C) / 20)
CLUTTER = (0.4, 0.2, 0.5)

# tracking
WALK = tr.constant_velocity(0.1, 0.25, 4.0)
WALK = WALK._replace(Q=WALK.Q + 0.01 * torch.eye(2, dtype=D))
START = tr.Belief(torch.zeros(2, 1, dtype=D), torch.eye(2, dtype=D))
XS, PATH = tr.simulated(WALK, START, tr.white(8, 5, WALK, g))
# one state: the eigenvectors of a larger covariance have a sign that each device chooses
ONE = torch.eye(1, dtype=D)
ALONG, BEFORE = tr.Model(0.9 * ONE, ONE, 0.2 * ONE, ONE), tr.Belief(0 * ONE, ONE)
GAPS = XS.clone()
GAPS[::3, ::2] = torch.nan
LORENZ = {order: tr.lorenz(0.02, 0.15, 1.0, order=order) for order in (None, 2)}
AT = tr.Belief(tr.attractor(4, g), torch.eye(3, dtype=D))
FLIGHTS, FLOWN = tr.simulated(LORENZ[None], AT, tr.white(8, 4, LORENZ[None], g))
NET = {"wide": 4, "hidden": 2, "generator": g}
ALL = ("difference", "innovation", "evolution", "update")


def kalman(rule, model, start, xs, **kind):
    return tr.history(tr.filtered(xs, model, rule(model), start, **kind))


def walker(network, k, base=None):
    """One training step of a gain on the walk, k observations."""
    gain = tr.KalmanNet(WALK, shaken(network.double()), base)
    return tr.Filter(WALK, gain, START.Sigma), (tr.Given(START.s, XS[:k]), PATH[:k])


def pilot(k):
    """The same on the attractor: the network corrects an extended Kalman filter."""
    model = LORENZ[2]
    network = shaken(tr.OneGRU(3, 3, ALL, 4, 2, g).double())
    gain = tr.KalmanNet(model, network, tr.extended(model), tr.compressed)
    return tr.Filter(model, gain, AT.Sigma), (tr.Given(AT.s, FLIGHTS[:k]), FLOWN[:k])


def scored(start, xs, s, model):
    beliefs = kalman(tr.riccati, model, start, xs)
    one = [f(beliefs) for f in (tr.log_likelihood, tr.diverged, tr.nis)]
    two = [f(beliefs, s) for f in (tr.state_error, tr.innovation_error)]
    return [*one, *two, tr.nees(beliefs.s, beliefs.Sigma, s), tr.mse_db(beliefs.s, s)]


def likely(module, xs, k):
    list(tr.fitting(module, lambda: -tr.log_likelihood(module(xs)).sum(), k))
    return list(module.parameters())


# smoothing
def smoother(k, passing=smoothing.messages):
    graph = shaken(smoothing.GraphNetwork(2, 2, 4, smoothing.changes, g).double())
    seen = weights.smoothing.Seen(WALK.H)
    network = smoothing.Augmented(WALK, START, graph, 1e-3, k, seen, passing)
    first = weights.smoothing.plain(WALK, START)(XS)
    return smoothing.Iterates(network), ((XS, first), XS)


# directions of arrival
ARRAY = doa.uniform_linear(6)
SCENE = doa.scenes(4, 2, ARRAY, 30, g)
SNAPS, DOA = doa.observed(SCENE, ARRAY, 10.0), SCENE.doa
R = doa.sample_covariance(SNAPS)
WRONG = doa.disturbed(ARRAY, normal(6, 4), 0.02, 0.5, 0.1)


def turned(head, R):
    """What a head answers, and its gradient in R."""
    R = R.detach().requires_grad_()
    found = head(R, 2)
    (slope,) = torch.autograd.grad(found.square().sum(), R)
    return found, slope


def directed(head):
    return lambda to, k: partial(turned, head, to(R))


def projector(R):
    E = doa.signal_subspace(R, 2)  # its columns are known up to a turn
    return E @ E.mH


# detection
AIR = mimo.rayleigh(6, 4, generator=g, dtype=D)
SENT = mimo.symbols(9, 4, 1, generator=g, dtype=D)
NOISE = normal(9, 6, 1)
HEARD = AIR @ SENT + 0.3**0.5 * NOISE
EACH = mimo.Received(HEARD, AIR.expand(9, 6, 4).clone(), torch.full((9, 1, 1), 0.3, dtype=D))
FLAT = (0.3,)


def deepsic(k, receivers=()):
    model = mimo.DeepSIC(6, 4, k, receivers, (8, 4), generator=g)
    return model, (HEARD, SENT) if not receivers else tuple(
        v[:, None].repeat(1, *receivers, 1, 1) for v in (HEARD, SENT)
    )


def through_air(channel, x, H, s, w):
    x = channel.observed(s, H, w, 10.0)
    return (
        x,
        channel.log_likelihood(x, s, H, 10.0),
        mimo.maximum_likelihood(x, H, 10.0, channel.log_likelihood),
    )


def mimo_scores(odds, s, H, z):
    return [mimo.ber(odds, s), mimo.qpsk_ser(odds, s), mimo.hard(odds), mimo.wrong(odds, s),
            mimo.uncertain(H, 0.1, z), mimo.real_model(torch.complex(H, z)),
            *mimo.least_squares(odds, s)]  # fmt: skip


# channels with memory
TAPS = equalize.exponential(0.4, 3, dtype=D)
PILOTS = equalize.sent(400, (2, 3), 3, g, dtype=D)
LAWS = {"gaussian": equalize.gaussian, "saturated": equalize.saturated, "poisson": equalize.poisson,
        "heavy_tailed": equalize.heavy_tailed}  # fmt: skip
BLOCKS = equalize.received(equalize.gaussian(8.0), TAPS, PILOTS)
LIKELY = equalize.channel_likelihood(BLOCKS, equalize.gaussian(8.0), TAPS)
MOVES = torch.tensor([[0.7, 0.3]]).double().log().expand(8, 2).clone()
FIRST = torch.full((8,), 1 / 8, dtype=D).log()
PARITY = equalize.bch_63_45()
WORDS = equalize.zero_words(4, 3.0, g).double()
CODE = equalize.hamming_crc(4)
CODED = CODE.encode(torch.randint(2, (8, CODE.info), generator=g))  # a block each
PAST = torch.zeros(3 - 1, 1, dtype=torch.long)


def spoken(law, taps, sent):
    x = equalize.received(law, taps, sent)
    return x, equalize.channel_likelihood(x, law, taps)


def counted(x, state, s):
    """Everything that pilots tell without training."""
    taps, variance = equalize.least_squares(x, state, equalize.BPSK, 3)
    by = equalize.by_state(x, state, 8)
    left = equalize.left_over(x, state, equalize.medians(x, state, 8))
    return [taps, variance, by(x), by.marginal(x), left(x), *equalize.ser(s, s.roll(1, 0)),
            equalize.learned_transitions(state, 8), equalize.outputs(taps),
            equalize.disturbed(taps, taps, 0.1), network_receiver(x)(x)]  # fmt: skip


def adapted(update, receiver, x, k):
    heard = equalize.adapting(x[:k], receiver, CODE, update, 3)
    return [(h.s, h.ok) for h in islice(heard, 1, None)]


def linear_receiver(to):
    return equalize.Linear(equalize.gaussian(8.0), to(TAPS[None, None]))


def network_receiver(x):
    return equalize.ViterbiNet(equalize.classifier_for(x, 8, g).double())


WAVES = torch.stack([equalize.received(
    equalize.gaussian(12.0), TAPS, equalize.Sent(s, equalize.states_of(torch.cat([PAST, s]), 3),
                                                 normal(CODE.length, 1)))
    for s in CODED[..., None]])  # fmt: skip

# the rest
BASE = {"generator": g}


def spectral(V, beta):
    V, beta = V.detach().requires_grad_(), torch.as_tensor(beta)
    found = [prox.row_threshold(V, beta), prox.singular_value_threshold(V, beta),
             prox.singular_value_threshold(V.mT, 0.1)]  # fmt: skip
    sum(f.abs().square().sum() for f in found).backward()
    return *found, V.grad


def shrunk(v, beta):
    return [prox.soft_threshold(v, 0.1), prox.soft_threshold(v, beta), prox.hard_threshold(v, 0.1),
            prox.keep_largest(v, 3), prox.smooth_hard_threshold(v, beta),
            prox.select_support(v, beta, 2), prox.select_support(v, 0.1, 0)]  # fmt: skip


def weighed(model, pair, k):
    step, belief = kt.kalman_step(model, 0.1, 1e-6), kt.initial_belief(model, 0.5)
    return kt.accumulate(repeat(pair, k), step, initial=belief)


def taught(train, model, *arguments, **options):
    """The parameters after some steps of training."""
    list(train(model, *arguments, **options))
    return list(model.parameters())


def call(f, *data):
    """A case without steps."""
    return lambda to, k: partial(f, *to(data))


def fold(algorithm, data, theta):
    """A case of k steps with the same theta."""
    return lambda to, k: partial(algorithm, *to(data), repeat(theta, k))


def network(make, data=PAIR, loss=learn.squared_error):
    """A case of one training step of a module of k layers."""
    return lambda to, k: partial(trained, to(make(k)), to(data), loss)


def unfolded(algorithm, theta, tied=(), **slots):
    return network(lambda k: Unfolded(algorithm, Thetas(theta, k, tied), H=H, **slots))


def filter_of(rule, model=WALK, start=START, xs=XS, **kind):
    """A case of k observations."""
    return lambda to, k: partial(kalman, rule, *to((model, start, xs[:k])), **kind)


def gain_of(make):
    """A case of one training step of KalmanNet on k observations."""

    def case(to, k):
        module, data = walker(make(), k) if make else pilot(k)
        return partial(trained, to(module), to(data), tr.state_error)

    return case


def smoothed(passing):
    def case(to, k):
        module, data = smoother(k, passing)
        return partial(trained, to(module), to(data), smoothing.weighted_error)

    return case


CASES = {
    "ISTA": fold(sparse.ista, PAIR_H, THETA),
    "ISTA, an operator": fold(sparse.ista, (normal(3, 18, 1), TURNED), (1e-3, RHO)),
    "FISTA": fold(sparse.fista, PAIR_H, THETA),
    "ADMM": fold(sparse.admm, PAIR_H, RIDGE),
    "IHT": fold(sparse.iht, PAIR_H, (MU, 3)),
    "coordinate descent": lambda to, k: partial(
        sparse.coordinate_descent, *to(PAIR_H), RHO, range(k)
    ),
    "greedy descent": fold(sparse.greedy_descent, PAIR_H, RHO),
    "unfolded ISTA": unfolded(sparse.ista, THETA),
    "unfolded FISTA": network(lambda k: Unfolded(sparse.fista, Thetas(MOMENTUM[:k]), H=H)),
    "unfolded ADMM": unfolded(sparse.admm, RIDGE, True),
    "unrolled IHT": unfolded(
        sparse.ista, (*STEP, Fixed(3)), part=sparse.matrices, shrink=prox.keep_largest
    ),
    "LCoD": unfolded(sparse.greedy_descent, (GRAM, RHO), (0,), part=sparse.learned_gram),
    "LISTA": network(lambda k: sparse.LISTA(H, THETA, k)),
    "LISTA-CPSS": network(lambda k: sparse.LISTA_CP(H, THETA, k, kept=[2] * k)),
    "ALISTA": network(lambda k: sparse.ALISTA(H, (1.0, RHO), k, kept=[2] * k)),
    "TiLISTA": network(lambda k: sparse.ALISTA(H, (1.0, RHO), k, learned=True)),
    "UnfoldedADMM": network(lambda k: sparse.UnfoldedADMM(H, RIDGE, k)),
    "Equilibrium": network(
        lambda k: Equilibrium(Unfolded(sparse.ista, Thetas((MU, 0.3), 1), H=H), tolerance=1e-3)
    ),
    "sparse scores": call(
        lambda x, s, H: [
            sparse.lasso(s, x, H, RHO), sparse.kkt_residual(s, x, H, RHO), sparse.coherence(H),
            sparse.least_squares_on(s != 0, x, H), sparse.analytic_weights(H), sparse.lipschitz(H),
            sparse.observed(s, H, x, 10.0)], X, S, H),
    "Lipschitz constant of an operator": call(sparse.lipschitz, TURNED),
    "low rank, ISTA": fold(lowrank.ista, (MOVIES[0], None), CLUTTER),
    "low rank, FISTA": fold(lowrank.fista, (MOVIES[0], BLUR), CLUTTER),
    "low rank, unfolded": network(
        lambda k: lowrank.Both(Unfolded(lowrank.ista, Thetas(CLUTTER, k), H=BLUR)),
        (MOVIES[0], torch.stack([*MOVIES[1]], 1))),
    "CORONA": network(lambda k: lowrank.CORONA(CLUTTER, k, 8, dtype=C), (MOVIES[0], MOVIES[1].S)),
    "MovieCNN": network(lambda k: lowrank.MovieCNN(5, 8, 4, generator=g), (MOVIES[0], MOVIES[1].S)),
    "movies": call(lowrank.observed, MOVIES[1], MOVIES[0], 5.0, 20.0, BLUR),
    "low rank scores": call(
        lambda x, parts, H: [
            *lowrank.svd_filter(x, 2), lowrank.robust_pca(parts, x, None, 0.1, 0.2),
            lowrank.lipschitz(H), lowrank.projection_db(x, 8), lowrank.separation_db(x, parts.S)],
        *MOVIES, BLUR),
    "Kalman filter": filter_of(tr.riccati),
    "Kalman filter, missing observations": filter_of(tr.riccati, xs=GAPS, missing=True),
    "steady Kalman filter": filter_of(tr.steady),
    "robust Kalman filter": filter_of(tr.robust),
    "switching Kalman filter": filter_of(
        lambda model: tr.switching(model, torch.stack([model.R, 9 * model.R]), 0.9)),
    "extended Kalman filter": filter_of(tr.extended, LORENZ[2], AT, FLIGHTS),
    "extended Kalman filter, Runge-Kutta": filter_of(tr.extended, LORENZ[None], AT, FLIGHTS),
    "extended Kalman filter, pendulum": filter_of(tr.extended, tr.pendulum(0.1, 1.0, 1.0)),
    "unscented Kalman filter": filter_of(tr.unscented, LORENZ[2], AT, FLIGHTS),
    "particle filter": lambda to, k: partial(
        tr.particle_filter, *to((XS[:k], ALONG)), 50, to(BEFORE), learn.seeded(3)),
    "learned Q and R": network(
        lambda k: tr.LearnedNoise(WALK, START), (XS, PATH),
        lambda beliefs, s: -tr.log_likelihood(beliefs).sum()),
    "Q and R by L-BFGS": lambda to, k: partial(
        likely, to(tr.LearnedNoise(WALK, START)), to(XS[:2]), k),
    "tracking scores": call(scored, START, XS, PATH, WALK),
    "covariance from a gain": call(tr.recovered, normal(2, 3), normal(3, 2), torch.eye(3)),
    "KalmanNet, one GRU": gain_of(lambda: tr.OneGRU(2, 1, ALL, **NET)),
    "KalmanNet, three GRUs": gain_of(lambda: tr.ThreeGRUs(2, 1, generator=g)),
    "Split-KalmanNet": gain_of(lambda: tr.SplitGRUs(2, 1, generator=g)),
    "KalmanNet on Lorenz": gain_of(None),
    "recurrent network": lambda to, k: partial(
        trained, to(tr.RNN(2, 1, 8, generator=g)), to((tr.Given(START.s, XS[:k]), PATH[:k])),
        tr.state_error),
    "trajectories": lambda to, k: partial(
        tr.simulated, *to((ALONG, BEFORE, tr.white(k, 3, ALONG, g)))),
    "pictures of a pendulum": call(tr.spots, normal(3, 2, 1)),
    "Rauch-Tung-Striebel": lambda to, k: partial(
        lambda *data: smoothing.rts(kalman(tr.riccati, *data)), *to((WALK, START, XS[:k]))),
    "smoother by messages": lambda to, k: partial(
        smoothing.by_gradient, *to((XS, WALK)), repeat(1e-3, k), to(START)),
    "smoother by messages, Lorenz": lambda to, k: partial(
        smoothing.by_gradient, *to((FLIGHTS, LORENZ[2])), repeat(1e-3, k), to(AT)),
    "augmented smoother": smoothed(smoothing.messages),
    "augmented smoother, detached": smoothed(smoothing.detached),
    "augmented smoother, its answer": lambda to, k: partial(
        to(smoother(k)[0].network), to(XS)),
    "graph network alone": smoothed(smoothing.silent),
    "largest step": call(smoothing.largest_step, WALK),
    "beamformer": call(doa.beamformer, R, 2),
    "MVDR": directed(doa.mvdr),
    "MUSIC": directed(doa.music),
    "MUSIC, an array of its own": call(doa.music, R, 2, WRONG),
    "Root-MUSIC": directed(doa.root_music),
    "ESPRIT": directed(partial(doa.esprit, weights=doa.parabola(6))),
    "signal subspace": call(projector, R),
    "maximum likelihood of directions": lambda to, k: partial(
        doa.maximum_likelihood, to(R), 2, steps=k),
    "calibrated array": call(partial(doa.calibrated, steps=5), R, DOA, ARRAY),
    "covariances": call(
        lambda x, R: [doa.lagged(x, 3), doa.forward_backward(R), doa.smoothed(R, 4),
                      doa.aic(R, 30), doa.mdl(R, 30), doa.coloured(x, 0.9)], SNAPS, R),
    "directions: scores and bounds": call(
        lambda doa_hat, angles, array, S: [
            doa.rmspe(doa_hat, angles), doa.doa_error(doa_hat, angles, 6.28),
            doa.stochastic_bound(angles, torch.eye(2).to(doa_hat), 30, array),
            doa.deterministic_bound(angles, S, array)], DOA + 0.1, DOA, ARRAY, SCENE.waveforms),
    "snapshots": call(
        lambda scene, array, noise: doa.observed(
            scene._replace(noise=scene.noise[:, :5]),
            doa.subarray(doa.disturbed(array, noise, 0.02, 0.5, 0.1), 5), 10.0, 0.5),
        SCENE, ARRAY, normal(6, 4)),
    "directions in one call": call(partial(doa.estimated, head=doa.esprit), SNAPS, 2),
    "SubspaceNet": network(lambda k: doa.SubspaceNet(shaken(doa.Dense(6, 2, 16, generator=g)), 2),
                           (SNAPS, DOA), doa.through(doa.esprit)),
    "SubspaceNet as published": network(
        lambda k: doa.SubspaceNet(doa.EncoderDecoder(2, (4, 8), generator=g), 2, skip=False),
        (SNAPS, DOA), doa.through(doa.root_music)),
    "Deep Root-MUSIC": network(
        lambda k: doa.SubspaceNet(
            doa.EncoderDecoder(2, (4, 8), doa.LeakyReLU(), 1, generator=g), 2, skip=False),
        (SNAPS, DOA), doa.through(doa.root_music)),
    "deep augmented MUSIC": network(
        lambda k: doa.DeepAugmentedMUSIC(6, 2, generator=g), (SNAPS, DOA), doa.mean_rmspe),
    "covariance CNN": network(
        lambda k: doa.CovarianceCNN(6, 2, 4, 16, generator=g), (SNAPS, DOA), doa.mean_rmspe),
    "zero forcing": call(mimo.zero_forcing, HEARD, AIR),
    "soft interference cancellation": fold(
        mimo.soft_interference_cancellation, (HEARD, AIR), FLAT),
    "soft interference cancellation, σ² on the device": lambda to, k: partial(
        mimo.soft_interference_cancellation, *to((HEARD, AIR)), repeat(to((EACH.variance,)), k)),
    "projected gradient": fold(mimo.projected_gradient, (HEARD, AIR), (0.2,)),
    "OAMP": lambda to, k: partial(mimo.oamp, *to((HEARD, AIR)), repeat((1.0, 1.0), k), 0.3),
    "DeepSIC": lambda to, k: partial(
        trained, to(deepsic(k)[0]), to(deepsic(k)[1]), mimo.cross_entropy),
    "DeepSIC, many receivers": lambda to, k: partial(
        trained, to(deepsic(k, (2,))[0]), to(deepsic(k, (2,))[1]), mimo.cross_entropy),
    "DetNet": network(lambda k: mimo.Layers(shaken(mimo.DetNet(4, k, generator=g))), (EACH, SENT),
                      mimo.every_layer),
    "OAMP-Net": network(lambda k: mimo.OAMPNet(k), (EACH, SENT)),
    "black box detector": network(
        lambda k: mimo.BlackBox(6, 4, generator=g), (HEARD, SENT), mimo.cross_entropy),
    **{f"channel {name}": call(partial(through_air, law), HEARD, AIR.abs(), SENT, NOISE)
       for name, law in weights.mimo.CHANNELS.items()},
    "detection scores": call(mimo_scores, HEARD[:, :4], SENT, AIR, NOISE[0] + AIR),
    **{f"{name} channel with memory": call(partial(spoken, law(10.0)), TAPS, PILOTS)
       for name, law in LAWS.items()},
    "Viterbi": lambda to, k: partial(equalize.viterbi, to(LIKELY[: 40 * k])),
    "Viterbi, transitions": lambda to, k: partial(
        equalize.viterbi, to(LIKELY[: 40 * k]), 2, *to((MOVES, FIRST))),
    "BCJR": lambda to, k: partial(equalize.bcjr, to(LIKELY[: 5 * k])),
    "BCJR, transitions": lambda to, k: partial(
        equalize.bcjr, to(LIKELY[: 5 * k]), 2, *to((MOVES, FIRST))),
    "pilots without training": call(counted, BLOCKS, PILOTS.state, PILOTS.s),
    "fading": call(lambda taps: equalize.fading(taps, 3, 0.1), equalize.exponential(0.4).double()),
    "ViterbiNet": network(
        lambda k: equalize.ViterbiNet(equalize.Classifier(8, (2,), (6, 4), generator=g), FIRST),
        (BLOCKS, PILOTS.state), equalize.cross_entropy),
    "sliding recurrent network": network(
        lambda k: equalize.SlidingRNN((2,), generator=g), (BLOCKS[:50], PILOTS.s[:50]),
        equalize.cross_entropy),
    "adapting, tracked taps": lambda to, k: partial(
        adapted, equalize.tracked, linear_receiver(to), to(WAVES), k),
    "adapting, a network retrained": lambda to, k: partial(
        adapted, equalize.retrained(2), to(network_receiver(WAVES[0])), to(WAVES), k),
    "adapting, kept": lambda to, k: partial(
        adapted, equalize.kept, linear_receiver(to), to(WAVES), k),
    "belief propagation": lambda to, k: partial(
        equalize.belief_propagation, *to((WORDS, PARITY)), repeat(1.0, k)),
    "belief propagation, learned weights": network(
        lambda k: Unfolded(equalize.belief_propagation, Thetas((torch.ones(432),), k), PARITY),
        (WORDS, WORDS), equalize.bit_error),
    "spectral proximal maps": call(lambda V: spectral(V, 0.2), MOVIES[0]),
    "spectral proximal maps, β on the device": call(spectral, MOVIES[0].real, torch.tensor(0.2)),
    "proximal maps": call(shrunk, S, torch.tensor(0.1)),
    "operators": call(lambda A, s, x, B: [A @ s, A.mT @ x, ops.solve(B, x), ops.solve(B, x[:, 0])],
                      TURNED, normal(36, 1), normal(18, 1), normal(18, 18)),
    "perceptron": network(lambda k: nets.mlp(20, 30, 40, generator=g)),
    "residual CNN": network(
        lambda k: nets.Cascade(H.mT, nets.residual_cnn(4, 3, 3, generator=g))),
    "flow": lambda to, k: partial(
        euler.flow, to(normal(3, 2, 1)), euler.pendulum(), euler.refined(1.0, k), euler.rk4),
    "flow, Euler and Heun": lambda to, k: partial(
        lambda s: [last(euler.flow(s, euler.pendulum(), [0.1] * k, rule))
                   for rule in (euler.euler, euler.heun)], to(normal(3, 2, 1))),
    "training by a Kalman filter": lambda to, k: partial(
        weighed, to(shaken(nets.mlp(20, 3, 40, generator=g))), to(PAIR), k),
    "training": lambda to, k: partial(
        taught, learn.training, to(sparse.LISTA(H, THETA, 2)), repeat(to(PAIR)),
        learn.squared_error, [learn.Stage(k)], clip=1.0),
    "training by a Kalman filter, to the end": lambda to, k: partial(
        taught, kt.kalman_training, to(shaken(nets.mlp(20, 3, 40, generator=g))), repeat(to(PAIR)),
        k, 0.1),
    "DeepSIC, trained iteration by iteration": lambda to, k: partial(
        taught, mimo.sequentially, to(deepsic(2)[0]), *to(deepsic(2)[1]), k),
    "DeepSIC, trained at once": lambda to, k: partial(
        taught, mimo.end_to_end, to(deepsic(2)[0]), *to(deepsic(2)[1]), k),
}  # fmt: skip


# ---- The shipped networks: a small draw and the loss of each file --------------------------------

W, seeded = weights, learn.seeded


def walked(start, x, s):
    return tr.Given(start, x), s


def bubbles(x, parts):
    return x, parts.S


by_esprit = doa.through(doa.esprit)
NETWORKS = {
    **dict.fromkeys(
        ["lista_minute", "lista_100", "family_100", "ill_100"],
        (lambda: W.noiseless(100, 200)[1](4, seeded(5)), learn.squared_error)),
    **dict.fromkeys(
        ["lista_250", "family_250", "noisy_250"],
        (lambda: W.noiseless(250, 500)[1](4, seeded(5)), learn.squared_error)),
    **dict.fromkeys(
        ["lista_150", "scalars", "few_layers", "matrices", "mismatch"],
        (lambda: W.noisy()[1](4, seeded(5)), learn.squared_error)),
    "ecg": (lambda: W.heartbeats()[1](4, seeded(5)), learn.squared_error),
    "variance": (lambda: W.unrolling.small()[1](4, seeded(5)), learn.squared_error),
    "corona": (lambda: bubbles(*W.lowrank.bubbles(2, seeded(5))), learn.squared_error),
    "corona_street": (lambda: bubbles(*W.lowrank.passers(2, seeded(5))), learn.squared_error),
    "kalmannet": (lambda: walked(*W.tracking.walks(4, 5, steps=10)), tr.state_error),
    "kalmannet_turned": (lambda: walked(*W.tracking.walks(4, 5, 10.0, 10)), tr.state_error),
    "kalmannet_lorenz": (lambda: walked(*W.tracking.flights(4, 5, 10)), tr.state_error),
    "kalmannet_weather": (lambda: walked(*W.tracking.weather(4, 5, 10)), tr.state_error),
    "augmentation_linear": (lambda: W.smoothing.on_axes(40, seeded(5)), learn.squared_error),
    "augmentation_lorenz": (lambda: W.smoothing.on_attractor(40, seeded(5)), learn.squared_error),
    "subspacenet": (lambda: W.doa.coherent(4, 5), by_esprit),
    "subspacenet_mixed": (lambda: W.doa.coherent(4, 5, phases=True), by_esprit),
    "subspacenet_few": (lambda: W.doa.apart(4, 5, snapshots=5), by_esprit),
    "subspacenet_array": (lambda: W.doa.bent(4, 5), by_esprit),
    "subspacenet_each": (lambda: W.doa.bent(4, 5, "each"), by_esprit),
    "mimo_unfolded": (lambda: W.mimo.scattered(4, seeded(5)), learn.squared_error),
    "detnet_large": (lambda: W.mimo.large(4, seeded(5)), learn.squared_error),
    "deepsic_many": (lambda: W.mimo.pilots(4, seeded(5)), mimo.cross_entropy),
    "deepsic_sizes": (lambda: W.mimo.pilots(4, seeded(5), users=4), mimo.cross_entropy),
    "sliding_rnn": (lambda: W.equalize.blocks(2, 5), equalize.cross_entropy),
}  # fmt: skip


def kinds(model):
    """The parts of a file, one of each kind: names that differ in their numbers are one."""
    parts = model.items() if isinstance(model, torch.nn.ModuleDict) else [("", model)]
    return {re.sub(r"\d+", "", name): part for name, part in parts}.values()


# ---- What is held --------------------------------------------------------------------------------

# name -> (waits in each step, why); None: not the same in each
WAITS = {
    **dict.fromkeys(
        ["low rank, ISTA", "low rank, FISTA", "low rank, unfolded", "CORONA"],
        (1, "singular values: eigh looks whether it has converged")),
    "unscented Kalman filter": (2, "a singular covariance has no Cholesky factor: it looks"),
    "particle filter": (2, "noise and a draw come from the CPU: every device sees the same"),
    "Q and R by L-BFGS": (None, "the line search compares losses"),
    "training": (3, LOSS := "each step tells its loss, and stops where that is not finite"),
    "training by a Kalman filter, to the end": (1, LOSS),
    "DeepSIC, trained iteration by iteration": (12, f"{LOSS}; the batch is drawn on the CPU"),
    "DeepSIC, trained at once": (6, f"{LOSS}; the batch is drawn on the CPU"),
    "adapting, tracked taps": (17, BLOCK := "once for each block: whether its code agrees"),
    "adapting, a network retrained": (12, BLOCK),
    "adapting, kept": (13, BLOCK),
}  # fmt: skip


BEYOND = {"training by a Kalman filter, to the end"}  # the stand-in


def ran(case, device, steps, dtype=torch.float64):
    """(the tensors that a case answers, back on the CPU; the waits while it ran)."""
    g.manual_seed(1)  # some cases draw their networks
    with running(device) as waits:
        call = case(Place(device, dtype), steps)
        before = len(waits)
        found = tensors(call())
        waits = waits[before:]
        return [t.detach().to(CPU) for t in found], waits


def test_every_case_that_waits_is_a_case():
    assert WAITS.keys() | BEYOND <= CASES.keys()


@pytest.fixture(scope="module", autouse=True)
def prepared():
    """The Lorenz models keep their matrices where they have been once."""
    with running(AWAY):
        for model in LORENZ.values():
            model.F(AT.s.to(AWAY))


def held(case, device, dtype=D, each=0):
    """Three steps there give what they give here, and each step has so many waits, none of them."""
    (theirs, none), (ours, few) = (ran(case, at, 3, dtype) for at in (CPU, device))
    close(ours, theirs, 1e-9 if dtype is D else 1e-2)
    if device == CUDA:
        _, few = ran(case, device, 3, dtype)  # the first call prepares
    _, many = ran(case, device, 6, dtype)
    assert none == []
    if device == AWAY and each is not None:
        assert len(many) - len(few) == 3 * each, (
            f"{len(few)} waits in 3 steps, {len(many)} in 6: {many}"
        )
    elif each == 0:  # how often an operation of its own waits, a GPU decides
        assert len(many) == len(few), f"{len(few)} waits in 3 steps, {len(many)} in 6"


@MACHINES
@pytest.mark.parametrize("name", CASES)
def test_it_answers_there_what_it_answers_here_and_no_step_waits(device, dtype, name):
    if device == AWAY and name in BEYOND:
        pytest.skip("the stand-in does not follow what is set by `parameter.data = ...`")
    each, _ = WAITS.get(name, (0, ""))
    held(CASES[name], device, dtype, each)


def test_the_stand_in_counts_waits_and_keeps_devices_apart():
    with running(AWAY) as waits:
        x = torch.arange(3.0).to(AWAY)
        assert x.is_cuda and x.device == AWAY and len(waits) == 1
        y = (2 * x + torch.ones(3, device=AWAY)).requires_grad_()
        y.square().sum().backward()
        assert len(waits) == 1  # arithmetic, filling and gradients wait for nothing
        for k, wait in enumerate([
            lambda: x.sum().item(), lambda: bool((x > 1).any()), lambda: x.cpu(), lambda: x[x > 1],
            lambda: x.nonzero(), lambda: x[torch.tensor([0, 2])], lambda: torch.ones(3).to(x),
            lambda: torch.tensor([1.0], device=x.device), lambda: torch.linalg.eigvalsh(x.diag()),
        ], 2):  # fmt: skip
            wait()
            assert len(waits) == k, k
        with pytest.raises(RuntimeError, match="two devices"):
            x + torch.ones(3)
    assert y.grad.value.tolist() == [2.0, 6.0, 10.0]


@MACHINES
def test_a_filter_that_diverges_says_so_there_too(device, dtype):
    def unchanged(belief, x, seen):
        return tr.Gain(belief.s.new_zeros(2, 1), 1e200 * belief.s, x)

    def case(to, k):
        start = START._replace(s=START.s + 1)
        return partial(tr.filtered, *to((XS, WALK)), unchanged, to(start))

    with pytest.raises(FloatingPointError, match="after observation"):
        ran(case, device, 3, dtype)


@MACHINES
def test_what_a_module_knows_moves_with_it_and_is_no_part_of_its_state(device, dtype):
    walk = Place(CPU, torch.float32)(WALK)
    network = tr.Filter(walk, tr.KalmanNet(walk, tr.OneGRU(2, 1), tr.extended(walk)), walk.Q)
    names = network.state_dict().keys()
    with running(device):
        network.to(device)
        known = [network.model, network.Sigma, network.gain.model, network.gain.base.eye]
        assert {t.device.type for t in tensors(known)} == {device.type}
        assert network.state_dict().keys() == names and all("network" in name for name in names)
    # another precision too: parameters and what is known stay alike
    assert {t.dtype for t in tensors(tr.LearnedNoise(walk, START).double().given)} == {D}


@MACHINES
def test_a_singular_system_is_an_error_here_and_not_finite_there(device, dtype):
    A, b = torch.ones(2, 2, dtype=dtype), torch.tensor([[1.0], [2.0]], dtype=dtype)
    with pytest.raises(torch.linalg.LinAlgError):
        ops.solve(A, b)
    with running(device) as waits:
        A, b = A.to(device), b.to(device)
        before = len(waits)
        x = ops.solve(A, b)
        assert len(waits) == before and not x.isfinite().all()


def looks(s):
    return s / max(1.0, s.abs().max().item())


def fills_here(s):
    return s + torch.zeros(s.shape, dtype=s.dtype)


def carries(s):
    return torch.eye(s.shape[-2]).to(s) @ s


def decides(s):
    return s.masked_fill(s < 0, 0) if (s < 0).any() else s


def selects(s):
    return s + s[s > 0].sum()


def lists(s):
    return s * torch.tensor([0.5], dtype=s.dtype, device=s.device)


def as_on_the_cpu(s):
    return s + 0.1 * s.is_cuda


@MACHINES
@pytest.mark.parametrize(
    "step", [looks, fills_here, carries, decides, selects, lists, as_on_the_cpu]
)
def test_a_wrong_algorithm_is_noticed(device, dtype, step):
    def folded(x, k):
        return kt.accumulate(range(k), lambda s, _: step(s), initial=x)

    def wrong(to, k):
        return partial(folded, to(X), k)

    with pytest.raises((AssertionError, RuntimeError), match="waits|device|not close"):
        held(wrong, device, dtype)


@MACHINES
@pytest.mark.parametrize("name", NETWORKS)
def test_a_shipped_network_answers_and_learns_there_as_here(device, dtype, name):
    draw, loss = NETWORKS[name]
    data = draw()
    for part in kinds(weights.shipped(name)):

        def case(to, k, part=part):
            return partial(trained, to(part), to(data), loss)

        (theirs, _), (ours, _) = (ran(case, at, 1, dtype) for at in (CPU, device))
        close(ours, theirs, 1e-7 if dtype is torch.float64 else 1e-2)


def test_every_shipped_network_has_its_line():
    assert NETWORKS.keys() == learn.manifest().keys()


DRAWN = """
    doa.narrowband doa.parabola doa.scenes doa.through equalize.bch_63_45 equalize.exponential
    equalize.hamming_crc equalize.heavy_tailed equalize.loaded equalize.noisy_words equalize.pilots
    equalize.poisson equalize.profile equalize.saturated equalize.sent equalize.windows
    equalize.zero_words lowrank.street lowrank.ultrasound lowrank.white mimo.counted mimo.decaying
    mimo.rayleigh mimo.symbols networks.parameters operators.dct_basis operators.wavelet_basis
    sparse.gaussian_matrix sparse.sparse_signals sparse.support_schedule tracking.attractor
    tracking.canonical tracking.chain tracking.constant_acceleration tracking.constant_velocity
    tracking.lorenz tracking.pendulum tracking.rotation tracking.runge_kutta tracking.windows
    sparse.transition
"""  # made on the CPU and then moved: data, models, arrays, codes, bases, batches, schedules
MODULES = {"sparse": sparse, "lowrank": lowrank, "tracking": tr, "smoothing": smoothing,
           "doa": doa, "mimo": mimo, "equalize": equalize, "operators": ops, "prox": prox,
           "unfold": unfold, "networks": nets, "equilibrium": equilibrium, "euler": euler,
           "kalman_training": kt}  # fmt: skip


def codes(thing):
    """The code of a function, or of what a class does when it is called."""
    for name in ("forward", "__call__", "__iter__", "step"):
        if isinstance(thing, type) and name in vars(thing):
            return vars(thing)[name].__code__
    return getattr(thing, "__code__", None)


def test_every_public_part_is_run_by_a_case():
    run, before = set(), sys.getprofile()
    sys.setprofile(lambda frame, event, arg: run.add(frame.f_code) if event == "call" else None)
    try:
        for case in CASES.values():
            ran(case, CPU, 1)
    finally:
        sys.setprofile(before)
    missed = {
        f"{module}.{name}"
        for module, where in MODULES.items()
        for name in where.__all__
        if (code := codes(getattr(where, name))) and code not in run
    }
    assert missed - set(DRAWN.split()) == set()


# ---- The benchmark that needs a GPU --------------------------------------------------------------


def benchmark(*arguments, **environment):
    command = [sys.executable, "benchmarks/gpu_speed.py", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    root = Path(__file__).parents[1]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", **on_gpu)])
def test_the_benchmark_runs_on_tiny_sizes(device, tmp_path):
    out = tmp_path / "out.json"
    done = benchmark("--device", device, "--tiny", "--seconds", "0", "--out", out)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["tiny"] and found["versions"].keys() >= {"torch", "python"}
    assert (found["device"] == "cpu") == (device == "cpu")
    assert [row["batch"] for row in found["crossover"]["LISTA"]["rows"]] == [1, 10]
    for table, ratio in (("networks", "training_cpu_over_device"),
                         ("graphs", "training_eager_over_graph"),
                         ("seeds", "one_by_one_over_together")):  # fmt: skip
        assert found[table] and all(row[ratio] > 0 for row in found[table])


def test_the_benchmark_says_that_there_is_no_gpu(tmp_path):
    done = benchmark("--out", tmp_path / "out.json", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1 and not any(tmp_path.iterdir())
    assert done.stderr == "gpu_speed: torch finds no GPU here; nothing was measured\n"
