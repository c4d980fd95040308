"""Smoothing: every state estimated from all observations, those after it too (chapters 09, 11).

What arrives are a filter's beliefs, last to first; or the smoother climbs the joint likelihood by
messages between neighbours, (33)-(35) in Shlezinger, Whang, Eldar, Dimakis 2023, "Model-Based Deep
Learning", doi 10.1109/JPROC.2023.3247480.
"""

from itertools import accumulate, repeat
from typing import Any, NamedTuple

import torch
from torch import nn

from .fold import last
from .networks import Knowing, mlp
from .operators import solve

__all__ = [
    "Augmented", "GraphNetwork", "Iterate", "Iterates", "Smoothed", "augmented", "by_gradient",
    "changes", "detached", "largest_step", "messages", "rts", "silent", "uncorrected",
    "weighted_error",
]  # fmt: skip


class Smoothed(NamedTuple):
    """The estimate s (T, ..., m, 1) of each state given all observations, and its covariance."""

    s: torch.Tensor
    Sigma: torch.Tensor


# ---- The algorithm: Rauch-Tung-Striebel --------------------------------------------------------


def rts(beliefs):
    """Rauch-Tung-Striebel: ŝ_t ← ŝ_t + G(ŝ_{t+1} − s⁻), Σ_t ← Σ_t + G(Σ_{t+1} − Σ⁻)Gᵀ, G = C(Σ⁻)⁻¹.

    beliefs: a filter's `history`. Its gains kept the expected state s⁻, Σ⁻ and the covariance C of
    it with the state before, so one smoother serves the Kalman, extended and unscented filter, and
    missing observations. A singular Σ⁻ (states moved without noise) gets its pseudo-inverse.
    Rauch, Tung, Striebel 1965, doi 10.2514/3.3166. ValueError if the gains kept no covariances.
    """
    gain = beliefs.gain
    if gain is None or gain.cross is None or gain.before is None or beliefs.Sigma is None:
        raise ValueError("beliefs: got no covariances, expected the history of a Kalman filter")
    before, cross = gain.before[1:], gain.cross[1:]
    tolerance = 100 * before.shape[-1] * torch.finfo(before.dtype).eps
    G = cross @ torch.linalg.pinv(before, rtol=tolerance, hermitian=True)

    def step(later, arriving):
        s, Sigma, G, expected, before = arriving
        return Smoothed(s + G @ (later.s - expected), Sigma + G @ (later.Sigma - before) @ G.mT)

    last = Smoothed(beliefs.s[-1], beliefs.Sigma[-1])
    forward = (beliefs.s[:-1], beliefs.Sigma[:-1], G, gain.s[1:], before)
    backward = zip(*(field.flip(0) for field in forward), strict=True)
    smooth = [*accumulate(backward, step, initial=last)][::-1]
    return Smoothed(torch.stack([b.s for b in smooth]), torch.stack([b.Sigma for b in smooth]))


# ---- The algorithm: messages between neighbours ------------------------------------------------


def messages(s, x, model, start):
    """The gradient of log p(x, s) in each s_t (T, ..., m, 1), as three messages that add up to it:

    from the past −Q⁻¹(s_t − F s_{t−1}), from the future FᵀQ⁻¹(s_{t+1} − F s_t), from what is
    observed HᵀR⁻¹(x_t − H s_t); (35). The text's (35c) prints F where the derivative gives H. The
    first state has the past F s_0 with covariance F Σ_0 Fᵀ + Q; the last has no future. Where F or
    H is a function, its transpose is that of its Jacobian at s_t (at s_0 for the first past).
    """
    F, H, Q, R = model
    ahead, turned = transposed(F, s)
    seen, back = transposed(H, s)
    expected, turned_start = transposed(F, start.s)
    unit = torch.eye(len(Q), dtype=Q.dtype, device=Q.device)[..., None]
    J = torch.cat([turned_start(e.expand_as(start.s)) for e in unit], dim=-1).mT
    first = solve(J @ start.Sigma @ J.mT + Q, s[:1] - expected)
    later = weighted(Q, s[1:] - ahead[:-1])
    past = -torch.cat([first, later])
    return past, turned(torch.cat([later, 0 * first])), back(weighted(R, x - seen))


def detached(s, x, model, start):
    """`messages` that no gradient passes through: cheaper to train with, and no worse."""
    with torch.no_grad():
        return messages(s, x, model, start)


def silent(s, x, model, start):
    """No messages: what is left of an augmented smoother is its network, a black box."""
    return (torch.zeros_like(s),) * 3


def transposed(f, s):
    """(f(s), v ↦ Jᵀv with the Jacobian J of f at s); a matrix is its own Jacobian."""
    if isinstance(f, torch.Tensor):
        return f @ s, lambda v: f.mT @ v
    value, pull = torch.func.vjp(f, s)
    return value, lambda v: pull(v)[0]


def weighted(Sigma, v):
    """Σ⁻¹v for columns (..., n, 1): one solve with many right-hand sides."""
    return solve(Sigma, v.reshape(-1, len(Sigma)).mT).mT.reshape(v.shape)


class Iterate(NamedTuple):
    """The estimate s (T, ..., m, 1) so far, and what the correction wants back at the next step."""

    s: torch.Tensor
    memory: Any = None


def augmented(x, model, gammas, start, correction, first=None, passing=messages):
    """One Iterate for each step size γ that arrives: s ← s + γ (sum of messages + ε), (37).

    (ε, memory) = correction(messages, x, memory) fills the slot; `uncorrected` makes it the plain
    smoother. x (T, ..., n, 1); `first` is where it begins: zeros if None; passing: `messages` or
    `silent`. Raises ValueError for observations that do not fit R, and for Q or R singular.
    """
    for name in ("Q", "R"):
        if torch.linalg.cholesky_ex(getattr(model, name).detach()).info.any():
            raise ValueError(f"{name}: got a singular matrix, expected a positive definite one")
    if x.ndim < 3 or x.shape[-2:] != (len(model.R), 1):
        raise ValueError(
            f"x: got shape {tuple(x.shape)}, expected (T, ..., {len(model.R)}, 1) to fit R"
        )
    if first is None:
        first = x.new_zeros(*x.shape[:-2], len(model.Q), 1)
    if first.shape != (*x.shape[:-2], len(model.Q), 1):
        raise ValueError(
            f"first: got shape {tuple(first.shape)}, expected one state of {len(model.Q)} entries "
            f"for each observation of x, {tuple(x.shape)}"
        )

    def step(state, gamma):
        mu = passing(state.s, x, model, start)
        epsilon, memory = correction(mu, x, state.memory)
        return Iterate(state.s + gamma * (sum(mu) + epsilon), memory)

    return accumulate(gammas, step, initial=Iterate(first))


def uncorrected(mu, x, memory):
    """The model-based part for the slot of the correction: ε = 0."""
    return 0.0, None


def by_gradient(x, model, gammas, start, first=None):
    """One s (T, ..., m, 1) for each step size γ that arrives: s ← s + γ (sum of `messages`), (34).

    For a linear model it climbs to the posterior mean, the answer of `rts`, for γ below 2 over the
    largest curvature. `augmented` without a correction, which see.
    """
    return (state.s for state in augmented(x, model, gammas, start, uncorrected, first))


def largest_step(model):
    """2/(‖HᵀR⁻¹H‖ + (1 + ‖F‖)²‖Q⁻¹‖): for a smaller γ, `by_gradient` comes closer at each step.

    Below the line is a bound on the curvature of log p(x, s), close to it for a long trajectory.
    """
    F, H, Q, R = model
    norm = torch.linalg.matrix_norm
    seen = norm(H.mT @ torch.linalg.solve(R, H), 2)
    return 2 / (seen + (1 + norm(F, 2)) ** 2 / torch.linalg.eigvalsh(Q)[0])


# ---- Learned parts -----------------------------------------------------------------------------


def changes(x):
    """(x_t − x_{t−1}, x_{t+1} − x_t) as one column, zero at the ends: no place is special."""
    none = torch.zeros_like(x[:1])
    step = x[1:] - x[:-1]
    return torch.cat([torch.cat([none, step]), torch.cat([step, none])], dim=-2)


class GraphNetwork(nn.Module):
    """ε for the slot of the correction: a network on the graph of states and observations, (36).

    Each state s_t holds a node h_t of `width` numbers, zero at first, each observation a node that
    a network reads from it once. Three networks, one for the past, the future and the observation,
    make a message from the two nodes and the model's own message μ; a GRU takes their sum into
    h_t, and a last network reads ε_t from h_t. It starts at ε = 0. Nothing is drawn when it runs.
    Garcia Satorras, Akata, Welling 2019, arXiv 1906.02547, whose nodes start at random.
    """

    def __init__(self, m, n, width=16, look=None, generator=None):
        super().__init__()
        self.width, self.look = width, look or (lambda x: x)
        self.observe = mlp(n, width, width, generator=generator)
        self.edges = nn.ModuleList(
            mlp(2 * width + m, width, width, generator=generator) for _ in range(3)
        )
        self.update = nn.GRUCell(width, width)
        self.answer = mlp(width, width, m, generator=generator)
        for p in self.update.parameters() if generator is not None else ():
            nn.init.uniform_(p, -(width**-0.5), width**-0.5, generator=generator)
        for p in self.answer.network[-1].parameters():
            nn.init.zeros_(p)

    def forward(self, mu, x, memory):
        h, seen = memory or (x.new_zeros(*x.shape[:-2], self.width, 1), self.observe(self.look(x)))
        none = torch.zeros_like(h[:1])
        nodes = torch.cat([none, h[:-1]]), torch.cat([h[1:], none]), seen
        m = sum(
            edge(torch.cat([node, h, message], -2))
            for edge, node, message in zip(self.edges, nodes, mu, strict=True)
        )
        h = self.update(m.reshape(-1, self.width), h.reshape(-1, self.width)).view_as(h)
        return self.answer(h), (h, seen)


class Augmented(Knowing):
    """`augmented` as a network: x ↦ H s after `depth` steps, begun where `before(x)` says.

    H s is what x would be without its noise. No gradient passes through the messages, as in the
    original. With passing=`silent` nobody speaks to the network: it is the black box.
    """

    def __init__(self, model, start, correction, gamma, depth, before, passing=detached):
        super().__init__()
        self.model, self.start, self.correction = model, start, correction
        self.gamma, self.depth, self.before, self.passing = gamma, depth, before, passing

    def states(self, x, first=None):
        first = self.before(x) if first is None else first
        gammas = repeat(self.gamma, self.depth)
        return augmented(
            x, self.model, gammas, self.start, self.correction, first, passing=self.passing
        )

    def iterates(self, x, first=None):
        """H s after each step, (depth, T, ..., n, 1), for the loss (38)."""
        _, *states = self.states(x, first)
        return torch.stack([transposed(self.model.H, state.s)[0] for state in states])

    def forward(self, x, first=None):
        return transposed(self.model.H, last(self.states(x, first)).s)[0]


class Iterates(nn.Module):
    """(x, first) ↦ all iterates of an `Augmented`, for training by `weighted_error`."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pair):
        return self.network.iterates(*pair)


def weighted_error(iterates, s):
    """Σ_k (k/K) mean |ŝ_k − s|² / Σ_k (k/K) over K iterates: (38), on the scale of one of them."""
    weights = torch.arange(1.0, len(iterates) + 1).to(s)
    errors = (iterates - s).square().flatten(1).mean(1)
    return (weights * errors).sum() / weights.sum()
