"""Model-based parts for the slot of the gain, and noise statistics that are learned."""

from typing import NamedTuple

import torch
from torch import nn

from mbdl_course.fold import accumulate, repeat, until
from mbdl_course.learn import Progress
from mbdl_course.networks import Knowing
from mbdl_course.operators import solve

from .algorithm import Belief, Gain, checked_model, filtered, history
from .problem import Model, apply, square_root

# ---- Model-based parts -------------------------------------------------------------------------


def riccati(model):
    """The Kalman gain: K = Σ⁻Hᵀ S⁻¹, S = HΣ⁻Hᵀ + R, Σ⁻ = FΣFᵀ + Q; the new Σ in Joseph's form.

    The covariances do not depend on the data: they are computed once for the whole batch, and ahead
    of the data where that is as exact (`Riccati.ahead`), unless observations are missing.
    ValueError if F or H is a function: see `extended`.
    """
    for name in ("F", "H"):
        if callable(getattr(model, name, None)):
            raise ValueError(f"{name}: got a function, expected a matrix; `extended` takes both")
    return Riccati(*extended(model))


def extended(model):
    """The Kalman gain of the model linearised at the estimate, with Jacobians of F and H by
    automatic differentiation; the expected values are F(ŝ) and H(F(ŝ)) themselves."""
    checked_model(model)
    return linearising(model)


def linearising(model):
    Q = model.Q
    return Linearising(model, torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device))


class Linearising(NamedTuple):
    """The gain of `extended`: a tuple, for what holds it to move to a device with all it knows."""

    model: Model
    eye: torch.Tensor

    def __call__(self, belief, x, seen=None):
        model, eye = self
        s, F = linearised(model.F, belief.s)
        x_hat, H = linearised(model.H, s)
        cross = claimed(belief) @ F.mT
        before = F @ cross + model.Q
        K, S, Sigma = updated(before, H, model.R, eye, seen)
        return Gain(K, s, x_hat, Sigma, S, before, cross)


def updated(before, H, R, eye, seen=None):
    """K, S and the covariance after the update."""
    C = before @ H.mT
    K, S = solved(C, H @ C + R, seen)
    A = eye - K @ H  # Joseph: stays a covariance in float32
    return K, S, A @ before @ A.mT + K @ R @ K.mT


class Riccati(NamedTuple):
    """The gain of `riccati`: a step of Linearising, which need not wait for the data."""

    model: Model
    eye: torch.Tensor

    def __call__(self, belief, x, seen=None):
        return Linearising(*self)(belief, x, seen)

    def ahead(self, start, horizon, most=1024):
        """The gain of each step; up to `most` covariances at once, by doubling as in `steady`.

        That is for one model in double precision that is not being learned. And one more step in
        Joseph's form has to confirm them to 1e-12: after a vague start, or where a state that grows
        has no noise, doubling cancels. Otherwise the steps are taken one by one.
        """
        F, H, *_ = self.model
        Sigma = claimed(start)
        exact = all(
            part.ndim == 2 and part.dtype == torch.float64 and not part.requires_grad
            for part in (*self.model, Sigma)
        )
        for begin in range(0, horizon, most):
            if exact:
                exact, *known = self._confirmed(Sigma, min(most, horizon - begin))
            if not exact:
                break
            yield from (Known(F, H, *row) for row in zip(*known, strict=True))
            Sigma = known[1][-1]
        yield from repeat(Linearising(*self))  # what is left

    def _confirmed(self, Sigma, steps):
        """Whether they are exact, then K, Σ, S, Σ⁻ and the cross-covariances of so many steps."""
        F, H, Q, R = self.model
        try:
            for _, _, before in doublings(self.model, self.eye, F @ Sigma @ F.mT + Q):
                if len(before) > steps:
                    break
            before = before[1 : steps + 1]
            K, S, after = updated(before, H, R, self.eye)
        except torch.linalg.LinAlgError:
            return (False,)
        cross = torch.cat([Sigma[None], after[:-1]]) @ F.mT
        again = F @ cross + Q
        gap = torch.maximum(apart(again, before), apart(again @ H.mT, before @ H.mT))
        return bool(gap < 1e-12), K, after, S, before, cross


def apart(a, b):
    """How far two sequences of matrices are apart, where the largest entry of each counts one."""
    return ((a - b).abs().amax((-2, -1)) / b.abs().amax((-2, -1))).max()


class Known(NamedTuple):
    """A gain whose covariances are known before the data come."""

    F: torch.Tensor
    H: torch.Tensor
    K: torch.Tensor
    Sigma: torch.Tensor
    S: torch.Tensor
    before: torch.Tensor
    cross: torch.Tensor

    def __call__(self, belief, x, seen=None):
        if seen is not None:
            raise ValueError("xs: got missing entries, expected none: a known gain counts on all")
        s = self.F @ belief.s
        return Gain(self.K, s, self.H @ s, self.Sigma, self.S, self.before, self.cross)


def doublings(model, eye, *first):
    """(A, G, X) over 1, 2, 4, ... steps: Σ⁻ ↦ P + AᵀΣ⁻(I + GΣ⁻)⁻¹A is the map, P = X[0]; the rest
    of X are the covariances of the steps, beginning with `first`. R is not singular.

    The map takes those of the first k steps to the next k, and P to the P of 2k steps.
    """

    def doubled(triple, _):
        A, G, X = triple
        WA, WGA = solve(eye + G @ X, torch.cat([A, G @ A.mT], dim=-1)).chunk(2, dim=-1)
        later = X[0] + A.mT @ X @ WA
        return A @ WA[0], G + A @ WGA[0], torch.cat([later[:1], X[1:], later[1:]])

    H, Q = model.H, model.Q
    A, G, *X = torch.broadcast_tensors(model.F.mT, H.mT @ solve(model.R, H), Q, *first)
    return accumulate(repeat(None), doubled, initial=(A, G, torch.stack(X)))


def unscented(model, kappa=1.0):
    """The gain from moments of 2m + 1 sigma points: F and H are evaluated, never differentiated.

    The points are mean ± columns of sqrt((m + κ)Σ) and the mean itself with weight κ/(m + κ); they
    are drawn anew after the step, so that H sees the noise v too. Exact moments for a linear model.
    Julier, Uhlmann 2004, doi 10.1109/JPROC.2003.823141, section III. ValueError unless κ ≥ 0.
    """
    if not kappa >= 0:
        raise ValueError(f"kappa: got {kappa!r}, expected 0 or more: all weights positive")
    checked_model(model)
    m = model.Q.shape[-1]

    def points(s, Sigma):
        spread = root(Sigma * (m + kappa)).mT[..., None]  # rows are points
        s = s.unsqueeze(-3)
        return torch.cat([s + 0 * spread[..., :1, :, :], s + spread, s - spread], dim=-3)

    weights = torch.full((2 * m + 1, 1, 1), 0.5 / (m + kappa), dtype=model.Q.dtype).to(model.Q)
    weights[0] = kappa / (m + kappa)

    def moments(a, b):  # of the points a, and their covariance with the points b
        mean = (weights * a).sum(-3)
        d, e = a - mean.unsqueeze(-3), b - (weights * b).sum(-3, keepdim=True)
        return mean, (weights * d @ d.mT).sum(-3), (weights * e @ d.mT).sum(-3)

    def gain(belief, x, seen=None):
        old = points(belief.s, claimed(belief))
        s, before, cross = moments(apply(model.F, old), old)
        before = before + model.Q
        new = points(s, before)
        x_hat, S, C = moments(apply(model.H, new), new)
        K, S = solved(C, S + model.R, seen)
        Sigma = before - K @ S @ K.mT
        return Gain(K, s, x_hat, (Sigma + Sigma.mT) / 2, S, before, cross)

    return gain


def steady(model):
    """The gain that the Kalman filter settles at: one K for ever, from the Riccati equation.

    Σ⁻ = F(Σ⁻ − Σ⁻Hᵀ(HΣ⁻Hᵀ + R)⁻¹HΣ⁻)Fᵀ + Q by doubling, which squares the error in each step:
    Anderson, Moore 1979, "Optimal Filtering", section 6.7. The observations must be complete.
    ValueError if R is singular, or if there is no such gain.
    """
    checked_model(model)
    R, H = model.R, model.H
    if torch.linalg.cholesky_ex(R.detach()).info.any():
        raise ValueError("R: got a singular matrix, expected a positive definite one")

    def close(old, new):
        return bool((old[2] - new[2]).abs().max() <= 1e-14 * new[2].abs().max())

    eye = torch.eye(model.Q.shape[-1]).to(R)
    *_, (_, _, (before,)) = until(doublings(model, eye), close, most=60)
    if not before.isfinite().all():
        raise ValueError("model: got none with a steady gain, expected every growing state seen")
    before = (before + before.mT) / 2
    K, S = solved(before @ H.mT, H @ before @ H.mT + R, None)
    Sigma = before - K @ S @ K.mT
    return Known(model.F, H, K, Sigma, S, before, Sigma @ model.F.mT)


def robust(model, most=1.5):
    """The extended Kalman gain, with R grown where an innovation is too long to be believed.

    d = sqrt(νᵀ S⁻¹ ν / n) above `most`: R becomes R (d / most)², so that one outlier moves the
    estimate by a bounded amount. An M-estimate's weights, after Huber 1964, doi
    10.1214/aoms/1177703732, in one step. ValueError unless most > 0.
    """
    if not most > 0:
        raise ValueError(f"most: got {most!r}, expected a positive number of deviations")
    plain = extended(model)

    def gain(belief, x, seen=None):
        g = plain(belief, x, seen)
        v = x - g.x if seen is None else torch.where(seen, x - g.x, 0)
        d2 = (v * solve(g.S, v)).sum((-2, -1), keepdim=True) / v.shape[-2]
        grown = model.R * (d2 / most**2).clamp(min=1)
        return linearising(model._replace(R=grown))(belief, x, seen)

    return gain


def switching(model, Rs, stay):
    """A gain for noise whose covariance is one of Rs (modes, n, n), by a chain nobody sees.

    Each mode has its Kalman gain K_j; p_j ∝ π_j N(ν; 0, S_j), K = Σ p_j K_j, and Σ is that of the
    mixture, put back together in each step (generalised pseudo-Bayes of order 1). The chain stays
    with probability `stay`, else jumps to another mode, all alike; or `stay` is the chain itself,
    the probabilities (modes, modes) of going from a row to a column. After Ackerson, Fu 1970, "On
    State Estimation in Switching Environments", IEEE Trans. Automatic Control 15. ValueError for
    fewer than two modes, or no probabilities.
    """
    count = len(Rs)
    if isinstance(stay, torch.Tensor):
        jump = stay.to(Rs)
        good = jump.shape == (count, count) and (jump >= 0).all()
        good = good and (jump.sum(-1) - 1).abs().max() < 1e-4
    else:
        eye, good = torch.eye(count).to(Rs), 0 <= stay <= 1
        jump = stay * eye + (1 - stay) / max(count - 1, 1) * (1 - eye)
    if count < 2 or not good:
        raise ValueError(
            f"Rs, stay: got {count} modes and {stay!r}, expected 2 or more, and a probability or a "
            f"matrix of them whose rows sum to one"
        )
    modes = linearising(model._replace(R=Rs))

    def gain(belief, x, seen=None):
        if seen is not None:
            raise ValueError("xs: got missing entries, expected none")
        Sigma = claimed(belief)
        g = modes(Belief(belief.s.unsqueeze(-3), Sigma.unsqueeze(-3)), x.unsqueeze(-3))
        v = x.unsqueeze(-3) - g.x
        before = x.new_full((count,), 1 / count) if belief.memory is None else belief.memory
        prior = before @ jump
        score = (v * solve(g.S, v)).sum((-2, -1)) + torch.logdet(g.S)
        p = (prior.log() - score / 2).softmax(-1)
        w = p[..., None, None]
        K = (w * g.K).sum(-3)
        away = (g.K - K.unsqueeze(-3)) @ v
        Sigma = (w * (g.Sigma + away @ away.mT)).sum(-3)
        return Gain(K, g.s.squeeze(-3), g.x.squeeze(-3), Sigma, memory=p)

    return gain


def solved(C, S, seen):
    """K = C S⁻¹, and S; entries of x that are not seen get no gain and leave S the identity's."""
    if seen is not None:
        eye = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)
        S = torch.where(seen & seen.mT, S, eye)
        C = torch.where(seen.mT, C, 0)
    return solve(S, C.mT).mT, S


def linearised(f, s):
    """(f(s), its Jacobian (..., n, m)): a matrix is its own; else one reverse pass over n copies of
    s, which is several times faster than a forward one. Keeps a graph only where f(s) has one."""
    if isinstance(f, torch.Tensor):
        return f @ s, f
    value = f(s)
    n = value.shape[-2]
    with torch.enable_grad():
        many = s.unsqueeze(-3).expand(*s.shape[:-2], n, *s.shape[-2:])
        many = many if many.requires_grad else many.detach().requires_grad_()
        copies = f(many)
        unit = torch.eye(n, dtype=s.dtype, device=s.device)[..., None].expand_as(copies)
        (rows,) = torch.autograd.grad(copies, many, unit, create_graph=value.requires_grad)
    return value, rows[..., 0]


def root(Sigma):
    """A square root of a covariance: by Cholesky, whose gradient is safe, unless it is singular."""
    L, info = torch.linalg.cholesky_ex(Sigma)
    return square_root(Sigma) if info.any() else L


def claimed(belief):
    """The covariance of a belief; ValueError where the start has none."""
    if belief.Sigma is None:
        raise ValueError("start.Sigma: got None, expected a covariance: this gain starts from it")
    return belief.Sigma


# ---- Learned parts -----------------------------------------------------------------------------


class Covariance(nn.Module):
    """A covariance L Lᵀ that stays positive definite: L is lower triangular, and the logarithm of
    its diagonal is what is learned. Starts at a positive definite Sigma, else ValueError."""

    def __init__(self, Sigma):
        super().__init__()
        L, info = torch.linalg.cholesky_ex(Sigma.detach())
        if info.any():
            raise ValueError("Sigma: got a matrix that is not positive definite")
        self.below = nn.Parameter(L.tril(-1))
        self.log_diagonal = nn.Parameter(L.diagonal(dim1=-2, dim2=-1).log())

    def forward(self):
        # a line search may try a huge step: between these bounds float32 holds L and its square
        L = self.below.tril(-1) + torch.diag_embed(self.log_diagonal.clamp(-40, 40).exp())
        return L @ L.mT


class LearnedNoise(Knowing):
    """The filter with Q and R learned, x ↦ `history`; F, H, the start and the gain's rule are kept.

    learn: which of "Q", "R"; they start at the model's. Example 13 in Shlezinger, Eldar, Boyd 2022,
    doi 10.1109/ACCESS.2022.3218802, trains them by the squared error, that is R up to a scale only:
    ŝ does not change when Q, R and Σ_0 are multiplied by one number. The likelihood settles it.
    """

    def __init__(self, model, start, learn=("Q", "R"), rule=riccati):
        super().__init__()
        self.given, self.start, self.rule = model, start, rule
        self.learned = nn.ModuleDict({name: Covariance(getattr(model, name)) for name in learn})

    @property
    def model(self):
        return self.given._replace(**{name: made() for name, made in self.learned.items()})

    def forward(self, xs, missing=False):
        model = self.model
        return history(filtered(xs, model, self.rule(model), self.start, missing))


def fitting(module, loss, steps, tolerance=1e-13):
    """Minimise loss() over a module's parameters by L-BFGS; yields a Progress after each step.

    For a few parameters and a smooth loss, as a likelihood. Ends early when the loss changes by
    less than `tolerance` times itself. FloatingPointError if the loss is not finite.
    """
    kind = {"max_iter": 1, "max_eval": 25, "line_search_fn": "strong_wolfe"}
    parameters = list(module.parameters())
    optimizer = torch.optim.LBFGS(parameters, tolerance_grad=0, tolerance_change=0, **kind)

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    before = None
    for k in range(1, steps + 1):
        value = float(optimizer.step(closure).detach())
        if not abs(value) < torch.inf:
            raise FloatingPointError(f"loss: got {value} at step {k - 1}")
        yield Progress(k, steps, value, None, None, 1.0, 0, module)
        if before is not None and abs(before - value) <= tolerance * abs(value):
            return
        before = value
