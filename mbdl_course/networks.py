"""Plain networks without any signal processing: black boxes, and values for slots."""

import torch
from torch import nn

__all__ = ["Cascade", "Columns", "Knowing", "mlp", "moved", "parameters", "residual_cnn"]


class Knowing(nn.Module):
    """A module that knows a model: what `.to` does to its parameters it does to tensors and tuples
    of them among its attributes too. They are no part of its `state_dict`."""

    def _apply(self, fn, recurse=True):
        known = {k: v for k, v in vars(self).items() if isinstance(v, (torch.Tensor, tuple))}
        vars(self).update(moved(known, fn))
        return super()._apply(fn, recurse)


def moved(value, fn):
    """The same value with fn(t) for each tensor t in it, through tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        return fn(value)
    if isinstance(value, dict):
        return {name: moved(part, fn) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [moved(part, fn) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


class Columns(nn.Module):
    """A network on flat vectors (..., n), given column vectors (..., n, 1)."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x[..., 0])[..., None]


class Cascade(nn.Module):
    """x ↦ network(start(x)): a fixed linear start, then a network that repairs what it leaves."""

    def __init__(self, start, network):
        super().__init__()
        self.register_buffer("start", start)
        self.network = network

    def forward(self, x):
        return self.network(self.start @ x)


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, s):
        return s + self.body(s.mT).mT  # (batch, m, 1) -> one channel (batch, 1, m)


def mlp(*sizes, generator=None):
    """A fully connected network n → ... → m with ReLU between, on column vectors (..., n, 1)."""
    if len(sizes) < 2:
        raise ValueError(f"sizes: got {sizes}, expected at least the input and the output size")
    layers = []
    for size_in, size_out in zip(sizes, sizes[1:], strict=False):
        layers += [seeded(nn.Linear(size_in, size_out), generator), nn.ReLU()]
    return Columns(nn.Sequential(*layers[:-1]))


def residual_cnn(channels=32, width=9, depth=5, generator=None):
    """s ↦ s + CNN(s) along a signal (batch, m, 1): `depth` convolutions of odd `width`."""
    sizes = [1, *[channels] * (depth - 1), 1]
    layers = []
    for size_in, size_out in zip(sizes, sizes[1:], strict=False):
        conv = nn.Conv1d(size_in, size_out, width, padding=width // 2, padding_mode="circular")
        layers += [seeded(conv, generator), nn.ReLU()]
    return Residual(nn.Sequential(*layers[:-1]))


def seeded(layer, generator):
    """Draw a layer's weights (He, uniform) from the generator instead of the global seed."""
    if generator is not None:
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
    return layer


def parameters(model):
    """The number of learned numbers in a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
