"""A network of infinite depth: the fixed point of a step, and its gradient without the way there.

    network = Equilibrium(Unfolded(ista, Thetas((mu, rho), 1), H=H))

What a task-driven method trains is "a network of infinite layers, whose output is a limit point"
of the algorithm: section IV-A in Monga, Li, Eldar 2021, doi 10.1109/MSP.2020.3016905.
"""

from functools import partial
from itertools import accumulate, repeat

import torch
from torch import nn

from .fold import last, until

__all__ = ["Equilibrium"]


class Equilibrium(nn.Module):
    """x ↦ s = f(s; x, θ), f the one layer of an `Unfolded`: the same layer without end.

    The layers run without a gradient until s changes by no more than `tolerance` times its largest
    entry. Then ds = (I − J)⁻¹ (∂f/∂θ dθ + ∂f/∂x dx), J = ∂f/∂s, by the implicit function theorem:
    a gradient g in s becomes u = g + Jᵀu, found by a fold of vector-Jacobian products, and u goes
    through one layer. Memory does not depend on the number of steps. The state of the algorithm is
    one tensor, and it takes `start=`. An entry of θ that does not move the fixed point, such as
    ISTA's step, has gradient zero up to rounding: freeze it, for Adam would scale rounding up.
    Raises ValueError if the layer is not one, or if either fold has not settled after `most` steps,
    TypeError for a state that is not a tensor, NotImplementedError for a second derivative.
    Source: Bai, Kolter, Koltun 2019, "Deep Equilibrium Models", arXiv 1909.01377, Theorem 1.
    """

    def __init__(self, layer, most=10_000, tolerance=1e-6):
        super().__init__()
        if len(layer.thetas) != 1:
            raise ValueError(f"layer: got {len(layer.thetas)} layers, expected one, to be repeated")
        if not tolerance > 0:
            raise ValueError(f"tolerance: got {tolerance:g}, expected a positive number")
        self.layer, self.most, self.tolerance = layer, most, tolerance

    def states(self, x, start=None):
        """Every state from `start` (zero if None) to the fixed point."""
        (theta,) = self.layer.thetas
        return self.settling("s", self.folded(x, repeat(theta), start))

    def forward(self, x, start=None):
        with torch.no_grad():
            s = last(self.states(x, start))
        (theta,) = self.layer.thetas
        step = partial(self.stepped, x, theta)
        out = step(s)
        if out.requires_grad:
            fixed = s.detach().requires_grad_()
            again = step(fixed)

            def adjoint(g):
                if torch.is_grad_enabled():
                    raise NotImplementedError("create_graph: got True, expected first derivatives")

                def pulled(u, g):
                    return g + torch.autograd.grad(again, fixed, u, retain_graph=True)[0]

                return last(self.settling("u", accumulate(repeat(g), pulled, initial=g)))

            out.register_hook(adjoint)
        return out

    def folded(self, x, thetas, start):
        return self.layer.algorithm(x, self.layer.H, thetas, start=start, **self.layer.slots)

    def stepped(self, x, theta, s):
        return last(self.folded(x, [theta], s))

    def settling(self, name, states):
        """The states up to the first that changes no more; ValueError after `most` of them."""
        settled = False

        def close(a, b):
            nonlocal settled
            if not isinstance(b, torch.Tensor):
                raise TypeError(f"layer: got a state {type(b).__name__}, expected one tensor")
            settled = bool((b - a).abs().max() <= self.tolerance * b.abs().max())
            return settled

        yield from until(states, close, self.most)
        if not settled:
            raise ValueError(
                f"most: got {self.most} steps, expected as many as {name} needs to settle within "
                f"{self.tolerance:g}; is the step too long, or the tolerance below rounding?"
            )
