"""Training as estimation: an extended Kalman filter whose state is a network's parameters.

w_{k+1} = w_k + ω_k and s_k = h(x_k; w_k) + ν_k, (27)-(28) in Monga, Li, Eldar 2021, "Algorithm
Unrolling", doi 10.1109/MSP.2020.3016905; what arrives are the training pairs.
"""

import math
from itertools import accumulate, islice
from typing import NamedTuple

import torch

from .learn import Progress
from .operators import solve

__all__ = ["Belief", "initial_belief", "kalman_step", "kalman_training", "predicted"]


class Belief(NamedTuple):
    """What is believed of the parameters: mean w (p, 1), covariance Sigma (p, p), and the loss,
    ‖s − ŝ‖² averaged over the newest pairs, before they were used."""

    w: torch.Tensor
    Sigma: torch.Tensor
    loss: torch.Tensor


def kalman_step(model, R, Q=0.0):
    """The step (belief, (x, s)) ↦ belief of (29)-(30), pure: the model's parameters stay.

    ŝ = h(x; w), J = ∂ŝ/∂w, K = ΣJᵀ(JΣJᵀ + R)⁻¹, w ← w + K(s − ŝ), Σ ← Σ − KJΣ + Q. A batch of
    pairs x (..., n, 1), s (..., m, 1) is one observation, all of it linearised at the same w. R > 0
    is a variance, or the covariance (m, m) of one s; Q ≥ 0 a variance, or a covariance (p, p).
    For a linear model, Q = 0 makes it recursive least squares. Memory O(p²), time O(p³). Several
    networks at once: `torch.func.vmap` of the step. Raises ValueError for a bad R or Q.
    """
    variance("R", R, math.ulp(0.0))
    variance("Q", Q, 0.0)

    def observe(w, x):
        s_hat = predicted(model, w, x).flatten()
        return s_hat, s_hat

    def step(belief, pair):
        w, Sigma, _ = belief
        x, s = pair
        J, s_hat = torch.func.jacrev(observe, has_aux=True)(w, x)
        J, error = J[..., 0], s.flatten() - s_hat
        noise = covariance(R, s.shape[-2], w)
        noise = torch.kron(eye(len(error) // len(noise), w), noise)
        S = J @ Sigma @ J.mT + noise
        K = solve(S, J @ Sigma).mT
        A = eye(len(w), w) - K @ J  # Joseph's form of Σ − KJΣ: rounding leaves it positive
        Sigma = A @ Sigma @ A.mT + K @ noise @ K.mT + covariance(Q, len(w), w)
        return Belief(w + K @ error[:, None], Sigma, error.square().mean() * s.shape[-2])

    return step


def predicted(model, w, x):
    """The model's output for x with the parameters w (p, 1) in the place of its own; pure."""
    shapes = {name: p.shape for name, p in model.named_parameters()}
    pieces = w[:, 0].split([shape.numel() for shape in shapes.values()])
    named = {k: v.view(shapes[k]) for k, v in zip(shapes, pieces, strict=True)}
    return torch.func.functional_call(model, named, (x,))


def initial_belief(model, Sigma):
    """The belief before any pair: the model's parameters, with variance (or covariance) Sigma."""
    variance("Sigma", Sigma, math.ulp(0.0))
    w = torch.nn.utils.parameters_to_vector(model.parameters()).detach()[:, None]
    return Belief(w, covariance(Sigma, len(w), w), w.new_zeros(()))


def kalman_training(model, batches, steps, R, Q=0.0, Sigma=1.0, validate=None, every=100):
    """Train model on what arrives by `kalman_step`; yields a Progress after each step.

    batches, validate, every and how it ends are as in `learn.training`: `break` leaves the model at
    its best validated state, or as it is without `validate`. The loss minimised is Σ‖s − ŝ‖², of
    which a step's is the mean; there is no learning rate, `lr` is NaN. Every parameter is trained.
    Raises ValueError for a bad argument, FloatingPointError if the loss is not finite.
    """
    for name, value in (("steps", steps), ("every", every)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}, expected a whole number, 1 or more")
    step, belief = kalman_step(model, R, Q), initial_belief(model, Sigma)
    return trained(model, accumulate(batches, step, initial=belief), steps, validate, every)


def trained(model, beliefs, steps, validate, every):
    kept = validation = best = None
    try:
        for k, belief in enumerate(islice(beliefs, 1, steps + 1), 1):
            loss = float(belief.loss)
            if not math.isfinite(loss):
                raise FloatingPointError(f"loss: got {loss} at step {k - 1}")
            torch.nn.utils.vector_to_parameters(belief.w[:, 0], model.parameters())
            if validate is not None and (k % every == 0 or k == steps):
                with torch.no_grad():
                    validation = float(validate(model))
                if best is None or validation < best:
                    best, kept = validation, belief.w
            yield Progress(k, steps, loss, validation, best, math.nan, 0, model)
    finally:
        if kept is not None:
            torch.nn.utils.vector_to_parameters(kept[:, 0], model.parameters())


def variance(name, value, least):
    """ValueError unless a number is `least` or more and finite, a matrix square and finite."""
    value = torch.as_tensor(value, dtype=torch.float64)
    if value.ndim == 0 and not least <= value < math.inf:
        expected = "a variance of 0 or more" if least == 0 else "a positive variance"
        raise ValueError(f"{name}: got {value:g}, expected {expected}")
    if value.ndim not in (0, 2) or value.shape[:1] != value.shape[1:] or not value.isfinite().all():
        raise ValueError(
            f"{name}: got shape {tuple(value.shape)}, expected a number or a finite square matrix"
        )


def covariance(value, size, like):
    """A covariance (size, size): as it is, or a variance times the identity."""
    if isinstance(value, (int, float)):
        return value * eye(size, like)
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if value.ndim == 2 and len(value) != size:
        raise ValueError(f"R, Q, Sigma: got {len(value)} rows, expected {size}")
    return value if value.ndim == 2 else value * eye(size, like)


def eye(size, like):
    """The identity beside a tensor: made there, not copied."""
    return torch.eye(size, dtype=like.dtype, device=like.device)
