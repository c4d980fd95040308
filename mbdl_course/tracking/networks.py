"""Networks in the slot of the gain (chapter 10), filters as modules to train, and a black box.

Revach et al. 2022, "KalmanNet", doi 10.1109/TSP.2022.3158588; Examples 18, 19 and (23)-(25) in
Shlezinger, Eldar, Boyd 2022, doi 10.1109/ACCESS.2022.3218802.
"""

from typing import Any, NamedTuple

import torch
from torch import nn

from mbdl_course.learn import seeded
from mbdl_course.networks import Knowing

from .algorithm import Belief, Gain, checked_model, filtered, history
from .parts import linearised
from .problem import apply

# ---- Learned parts: what a network sees -------------------------------------------------------


class Features(NamedTuple):
    """What KalmanNet's gain may look at, rows (batch, n) or (batch, m): F1, F2, F3, F4.

    difference x_t − x_{t−1}; innovation x_t − x̂_{t|t−1}; evolution ŝ_{t−1} − ŝ_{t−2}; update
    ŝ_{t−1} − ŝ_{t−1|t−2}. Revach et al. 2022, doi 10.1109/TSP.2022.3158588, section III-B.
    """

    difference: torch.Tensor
    innovation: torch.Tensor
    evolution: torch.Tensor
    update: torch.Tensor


def unit(v):
    """v / ‖v‖, the published normalisation: the direction stays, the size is lost."""
    return nn.functional.normalize(v, dim=-1)


def compressed(v):
    """asinh(v): small entries as they are, large ones by their logarithm; the size stays."""
    return v.asinh()


class Memory(NamedTuple):
    """What KalmanNet keeps from one step to the next: x_t, ŝ_{t−1}, ŝ_{t|t−1}, a network's own."""

    x: torch.Tensor
    s: torch.Tensor
    expected: torch.Tensor
    hidden: Any


class KalmanNet(Knowing):
    """A gain for `filtered`, from a recurrent network: (K, hidden) = network(features, H, hidden).

    ŝ_t = s⁻ + K_t (x_t − H(s⁻)), s⁻ = F(ŝ_{t−1}), (23) in Shlezinger, Eldar, Boyd 2022, doi
    10.1109/ACCESS.2022.3218802; Revach et al. 2022, doi 10.1109/TSP.2022.3158588. Of the model only
    F and H are used. With a `base`, a gain such as `extended(guess)`, the network's K is added to
    the base's; a network that ends in zeros is then the base. scaling: of each feature, `unit` as
    published, or `compressed`. Missing observations are a ValueError.
    """

    def __init__(self, model, network, base=None, scaling=unit):
        super().__init__()
        checked_model(model)
        self.model, self.network, self.base, self.scaling = model, network, base, scaling

    def forward(self, belief, x, seen=None):
        if seen is not None:
            raise ValueError("xs: got missing entries, expected none: KalmanNet looks at all")
        s_hat = belief.s.expand(*x.shape[:-2], *belief.s.shape[-2:])
        s = apply(self.model.F, s_hat)
        x_hat, H = linearised(self.model.H, s)
        past = belief.memory or Memory(apply(self.model.H, s_hat), s_hat, s_hat, None)
        seen = (x - past.x, x - x_hat, s_hat - past.s, s_hat - past.expected)
        rows = Features(*(self.scaling(v[..., 0].flatten(0, -2)) for v in map(atleast_3d, seen)))
        K, hidden = self.network(rows, H if H.ndim == 2 else H.flatten(0, -3), past.hidden)
        K, Sigma = K.reshape(*x.shape[:-2], *K.shape[-2:]), None
        if self.base is not None:
            with torch.no_grad():  # the base is as it is; only the network learns
                g = self.base(Belief(belief.s.detach(), belief.Sigma), x)
            K, Sigma = K + g.K, g.Sigma
        return Gain(K, s, x_hat, Sigma, memory=Memory(x, s_hat, s, hidden))


def atleast_3d(v):
    return v if v.ndim > 2 else v[None]


def recovered(K, H, R):
    """The covariance of the error that an optimal gain implies: Σ = K R (H⁺)ᵀ, symmetrised.

    From K = Σ Hᵀ R⁻¹, for K (..., m, n), H (n, m) of full column rank, R (n, n). The claim of a
    learned gain, which is right as far as the gain is optimal and R is. After Klein et al. 2022,
    "Uncertainty in Data-Driven Kalman Filtering for Partially Known State-Space Models", arXiv
    2110.04738.
    ValueError if H has not full column rank.
    """
    if torch.linalg.matrix_rank(H) < H.shape[-1]:
        raise ValueError(f"H: got rank {torch.linalg.matrix_rank(H)}, expected {H.shape[-1]}")
    Sigma = K @ R @ torch.linalg.pinv(H).mT
    return (Sigma + Sigma.mT) / 2


# ---- Learned parts: networks for the gain -----------------------------------------------------


class OneGRU(nn.Module):
    """The first published gain: Linear → ReLU → GRU → Linear → ReLU → Linear → K (batch, m, n).

    looks: names of Features; widths: wide·(inputs), of the GRU hidden·(m² + n²), then 4mn. The
    last layer starts at zero: K = 0. Revach et al. 2022, section III-C, architecture 1.
    """

    def __init__(self, m, n, looks=("innovation", "update"), wide=80, hidden=10, generator=None):
        super().__init__()
        sizes = {"difference": n, "innovation": n, "evolution": m, "update": m}
        inputs, units = sum(sizes[name] for name in looks), hidden * (m**2 + n**2)
        self.shape, self.looks = (m, n), looks
        self.embed = layer(inputs, wide * inputs)
        self.gru = nn.GRUCell(wide * inputs, units)
        self.out = nn.Sequential(layer(units, 4 * m * n), nn.Linear(4 * m * n, m * n))
        drawn(self, generator, last=self.out[-1])

    def forward(self, features, H, hidden=None):
        rows = torch.cat([getattr(features, name) for name in self.looks], -1)
        hidden = self.gru(self.embed(rows), hidden)
        return self.out(hidden).unflatten(-1, self.shape), hidden


class ThreeGRUs(nn.Module):
    """The second published gain: a GRU each for Q, Σ and S, wired as the covariances of the filter.

    Q → Σ → S, then K from (Σ, S), and the state of Σ is overwritten from (Σ, S, K). wide: of the
    features' embeddings, deep: of the hidden layer before K; 1,568 parameters for m = n = 2 and
    wide = deep = 5. The last layer of K starts at zero. Revach et al. 2022, section III-C,
    architecture 2.
    """

    def __init__(self, m, n, wide=5, deep=40, generator=None):
        super().__init__()
        self.shape, mm, nn_ = (m, n), m * m, n * n
        self.update, self.evolution = layer(m, m * wide), layer(m, m * wide)
        self.observed = layer(2 * n, 2 * n * wide)
        self.gru_q = nn.GRUCell(m * wide, mm)
        self.gru_sigma = nn.GRUCell(mm + m * wide, mm)
        self.gru_s = nn.GRUCell(nn_ + 2 * n * wide, nn_)
        self.to_s = layer(mm, nn_)
        units = deep * (mm + nn_)
        self.gain = nn.Sequential(layer(mm + nn_, units), nn.Linear(units, m * n))
        self.back = layer(nn_ + m * n, mm)
        self.to_sigma = layer(2 * mm, mm)
        drawn(self, generator, last=self.gain[-1])

    def forward(self, features, H, hidden=None):
        q, sigma, s = hidden or self.first(features.update)
        q = self.gru_q(self.update(features.update), q)
        sigma = self.gru_sigma(torch.cat([q, self.evolution(features.evolution)], -1), sigma)
        seen = self.observed(torch.cat([features.difference, features.innovation], -1))
        s = self.gru_s(torch.cat([self.to_s(sigma), seen], -1), s)
        K = self.gain(torch.cat([sigma, s], -1))
        sigma = self.to_sigma(torch.cat([sigma, self.back(torch.cat([s, K], -1))], -1))
        return K.unflatten(-1, self.shape), (q, sigma, s)

    def first(self, like):
        """Q = I, Σ = 0, S = I, as rows."""
        m, n = self.shape
        kind = {"dtype": like.dtype, "device": like.device}
        eyes = (torch.eye(m, **kind), torch.zeros(m, m, **kind), torch.eye(n, **kind))
        return tuple(e.flatten().expand(len(like), -1) for e in eyes)


class SplitGRUs(nn.Module):
    """Split-KalmanNet's gain, K = P Hᵀ W: one GRU answers P (m, m), the other W (n, n) for S⁻¹.

    A mismatch of the state's step and one of the observation have a branch each; H, or its
    Jacobian, stays in the formula. The last layers start at zero, so P = c I and W = c I, with
    c = `first`. Choi et al. 2023, doi 10.1109/TVT.2023.3270353, (9)-(12); without its linearisation
    errors as features, which are zero for a linear model.
    """

    def __init__(self, m, n, wide=8, hidden=4, first=0.7, generator=None):
        super().__init__()
        units = hidden * (m**2 + n**2)
        self.first = first
        self.of_p = Branch(2 * m, wide * m, units, m, generator)
        self.of_w = Branch(2 * n, wide * n, units, n, generator)

    def forward(self, features, H, hidden=None):
        p, w = hidden or (None, None)
        P, p = self.of_p(torch.cat([features.evolution, features.update], -1), p)
        W, w = self.of_w(torch.cat([features.difference, features.innovation], -1), w)
        kind = {"dtype": P.dtype, "device": P.device}
        P, W = (M + self.first * torch.eye(M.shape[-1], **kind) for M in (P, W))
        return P @ H.mT @ W, (p, w)


class Branch(nn.Module):
    def __init__(self, inputs, wide, units, size, generator):
        super().__init__()
        self.size = size
        self.embed, self.gru = layer(inputs, wide), nn.GRUCell(wide, units)
        self.out = nn.Sequential(layer(units, 4 * size**2), nn.Linear(4 * size**2, size**2))
        drawn(self, generator, last=self.out[-1])

    def forward(self, rows, hidden):
        hidden = self.gru(self.embed(rows), hidden)
        return self.out(hidden).unflatten(-1, (self.size, self.size)), hidden


def layer(size_in, size_out):
    return nn.Sequential(nn.Linear(size_in, size_out), nn.ReLU())


def drawn(network, generator, last=None):
    """A network's weights (Xavier, uniform) from the generator, biases zero; `last` all zero."""
    for p in network.parameters():
        if p.ndim > 1:
            nn.init.xavier_uniform_(p, generator=generator)
        else:
            nn.init.zeros_(p)
    if last is not None:
        nn.init.zeros_(last.weight)
    return network


# ---- Learned parts: a filter as a module to train ----------------------------------------------


class Given(NamedTuple):
    """What a filter gets: the state before the first step, (..., m, 1), and xs (T, ..., n, 1)."""

    start: torch.Tensor
    xs: torch.Tensor


class Filter(Knowing):
    """`filtered` as a network, Given ↦ its `history`: gain and encoder are what is learned.

    With an encoder h, the filter runs on the features h(x), (25) in Shlezinger, Eldar, Boyd 2022,
    doi 10.1109/ACCESS.2022.3218802; h sees all leading dimensions at once. cut: gradients do not
    pass from one block of so many steps to the one before (truncated back-propagation).
    """

    def __init__(self, model, gain, Sigma=None, encoder=None, cut=None):
        super().__init__()
        self.model, self.gain, self.Sigma, self.encoder, self.cut = model, gain, Sigma, encoder, cut

    def forward(self, given):
        xs = given.xs if self.encoder is None else self.encoder(given.xs)
        belief, all_of_it = Belief(given.start, self.Sigma), []
        for block in xs.split(self.cut or len(xs)):
            _, *beliefs = filtered(block, self.model, self.gain, detached(belief))
            all_of_it += beliefs
            belief = beliefs[-1]
        return history([None, *all_of_it])


def detached(value):
    """The same value, nested tuples and all, without the graph that made it."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, tuple):
        parts = map(detached, value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def state_error(beliefs, s):
    """(24) in Shlezinger, Eldar, Boyd 2022: ‖ŝ − s‖² averaged over time and trajectories."""
    return (beliefs.s - s).square().sum((-2, -1)).mean()


def innovation_error(beliefs, s):
    """‖x − x̂‖² averaged over time and trajectories; looks at no state. Unsupervised learning:
    Revach et al. 2022, "Unsupervised Learned Kalman Filtering", arXiv 2110.09005."""
    return beliefs.innovation.square().sum((-2, -1)).mean()


def windows(start, x, s, size, horizons, seed, spread=0.0):
    """Random mini-batches (Given, s) of `size` windows, horizons ((steps, batches), ...) in turn.

    start (count, m, 1), x (T, count, n, 1), s (T, count, m, 1). Each window begins at a random
    step of a random trajectory, from the true state before it plus noise of deviation `spread`.
    Short windows first: a gain that is not yet one diverges on long ones. ValueError for a horizon
    longer than T.
    """
    T, count = x.shape[:2]
    for horizon, _ in horizons:
        if not isinstance(horizon, int) or not 1 <= horizon <= T:
            raise ValueError(f"horizons: got {horizon!r} steps, expected 1 to {T}, those of x")
    path = torch.cat([start.expand(1, *s.shape[1:]), s])

    def window(horizon, generator):
        k = torch.randint(count, (size,), generator=generator)
        t = torch.randint(T - horizon + 1, (size,), generator=generator)
        at = t + torch.arange(horizon)[:, None]
        first = path[t, k]
        noise = torch.randn(first.shape, generator=generator).to(first)
        return Given(first + spread * noise, x[at, k]), s[at, k]

    generator = seeded(seed)
    return (window(horizon, generator) for horizon, times in horizons for _ in range(times))


# ---- Black box ---------------------------------------------------------------------------------


class RNN(nn.Module):
    """Given ↦ Belief(ŝ) by a GRU of `layers` layers that knows nothing of the model.

    x/scale goes in, with the start at every step; a linear layer answers ŝ/scale. relu=True ends in
    a ReLU as the published baseline does: no entry of ŝ can then be negative.
    """

    def __init__(self, m, n, hidden=36, layers=1, scale=1.0, relu=False, generator=None):
        super().__init__()
        self.scale, self.relu = scale, relu
        self.gru = nn.GRU(n + m, hidden, layers)
        self.out = nn.Linear(hidden, m)
        drawn(self, generator)

    def forward(self, given):
        start, xs = torch.broadcast_tensors(given.start, given.xs[:, ..., :1, :])[0], given.xs
        rows = torch.cat([xs, start.expand(*xs.shape[:-2], *start.shape[-2:])], -2)[..., 0]
        hidden, _ = self.gru(rows / self.scale)
        s = self.out(hidden)
        return Belief(self.scale * (s.relu() if self.relu else s)[..., None])
