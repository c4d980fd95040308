"""Any algorithm that folds a step over parameters becomes a network of finite depth."""

from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import nn

from .fold import estimate, last
from .networks import Knowing

__all__ = ["Fixed", "Thetas", "Unfolded"]


class Fixed(NamedTuple):
    """An entry of θ that is structure and not a number to learn (a count): arrives as it is."""

    value: Any


class Thetas(nn.Module):
    """The learned parameters that arrive: θ for ever (tied) or θ_0, ..., θ_{depth−1}.

    theta is a tuple of numbers and tensors, and every layer starts as a copy of it; or it is a list
    of such tuples, one for each layer. Numbers (and
    0-dimensional tensors) are steps, weights and penalties: they stay positive because their
    logarithm is what is learned. Tensors of one or more dimensions are learned as they are, and
    what is wrapped in `Fixed` arrives as it is;
    tied=True shares all of theta between the layers, tied=(i, ...) the entries at these positions;
    frozen=(i, ...) are not learned. Raises ValueError for a number that is not positive and finite,
    or depth < 1.
    """

    def __init__(self, theta, depth=None, tied=(), frozen=(), dtype=None, device=None):
        super().__init__()
        depth = len(theta) if depth is None and isinstance(theta, list) else depth
        if not isinstance(depth, int) or depth < 1:
            raise ValueError(f"depth: got {depth!r}, expected a whole number of layers, 1 or more")
        kind = {"dtype": dtype or torch.get_default_dtype(), "device": device}

        def parameter(i, value):
            if isinstance(value, Fixed):
                return value
            value = torch.as_tensor(value, **kind).detach()
            if not value.isfinite().all() or (value.ndim == 0 and value <= 0):
                came = f"{value.item():g}" if value.ndim == 0 else "NaN or Inf"
                raise ValueError(f"theta[{i}]: got {came}, expected positive and finite numbers")
            return nn.Parameter(value.log() if value.ndim == 0 else value.clone(), i not in frozen)

        each = theta if isinstance(theta, list) else [theta] * depth
        tied = range(len(each[0])) if tied is True else tied or ()
        first = [parameter(i, value) for i, value in enumerate(each[0])]
        self.layers = nn.ModuleList(
            nn.ParameterList(
                first[i] if i in tied or k == 0 else parameter(i, value)
                for i, value in enumerate(theta)
            )
            for k, theta in enumerate(each)
        )

    def __iter__(self):
        for layer in self.layers:
            yield tuple(map(arriving, layer))

    def __len__(self):
        return len(self.layers)

    def schedule(self, position):
        """The values of one number over the layers, (depth,), for a plot."""
        return torch.stack([theta[position] for theta in self]).detach()


def arriving(value):
    """What an algorithm gets of a stored entry: the number behind a logarithm, or it itself."""
    if isinstance(value, Fixed):
        return value.value
    return value.exp() if value.ndim == 0 else value


class Unfolded(Knowing):
    """algorithm(x, H, thetas, ...) as a network: x ↦ the estimate after the last θ.

    H is model knowledge, carried along but not learned. `states(x)` yields every state, the initial
    one first; `forward(x, depth=k)` stops after k layers.
    """

    def __init__(self, algorithm, thetas, H=None, **slots):
        super().__init__()
        self.algorithm, self.thetas, self.slots = algorithm, thetas, slots
        if isinstance(H, torch.Tensor):
            self.register_buffer("H", H)
        else:
            self.H = H

    def states(self, x):
        return self.algorithm(x, self.H, self.thetas, **self.slots)

    def forward(self, x, depth=None):
        if depth is not None and not 1 <= depth <= len(self.thetas):
            raise ValueError(f"depth: got {depth}, expected 1 to {len(self.thetas)}")
        return estimate(last(islice(self.states(x), None if depth is None else depth + 1)))
