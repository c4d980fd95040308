"""Linear observation operators: `H @ s` and `H.mT @ x` on column vectors (..., m, 1).

A plain tensor is an operator too. The classes here exist where a dense matrix is wasteful, or where
many signals share it. They are modules, so that `.to(device)` and `state_dict` reach their tensors.
"""

import pywt
import torch
from torch import nn

__all__ = [
    "Chain", "Mask", "Matrix", "Separable", "as_operator", "dct_basis", "solve", "wavelet_basis",
]  # fmt: skip


class Transposed:
    """The transpose of an operator, as `H.mT`."""

    def __init__(self, operator):
        self.operator = operator

    @property
    def mT(self):
        return self.operator

    @property
    def shape(self):
        return self.operator.shape[::-1]

    def __matmul__(self, x):
        return self.operator.transposed(x)


class Operator(nn.Module):
    """What `@`, `.mT` and `.dense()` mean, given `forward` (H s), `transposed` (Hᵀ x), `shape`."""

    @property
    def mT(self):
        return Transposed(self)

    def __matmul__(self, s):
        return self(s)

    def dense(self, **kind):
        """The matrix itself, (n, m): the operator applied to the unit vectors."""
        unit = torch.eye(self.shape[1], **kind)
        return self(unit[..., None])[..., 0].mT


class Matrix(Operator):
    """One dense matrix (n, m) for a whole batch of signals.

    torch computes matrix @ (batch, m, 1) as a batch of matrix-vector products; the same numbers as
    one matrix product are about ten times faster, and that is all this class does.
    """

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", matrix)

    @property
    def shape(self):
        return tuple(self.matrix.shape)

    def forward(self, s):
        return times(self.matrix, s)

    def transposed(self, x):
        return times(self.matrix.mT, x)


class Mask(Operator):
    """x = s[kept]: sampling of some entries of a vector, n = number of kept, m = size."""

    def __init__(self, kept, size):
        super().__init__()
        kept = torch.as_tensor(kept)
        if kept.ndim != 1 or kept.numel() == 0 or kept.min() < 0 or kept.max() >= size:
            raise ValueError(
                f"kept: got {kept.numel()} indices of shape {tuple(kept.shape)}, "
                f"expected a non-empty vector of indices in 0..{size - 1}"
            )
        self.register_buffer("kept", kept)
        self.size = size

    @property
    def shape(self):
        return (self.kept.numel(), self.size)

    def forward(self, s):
        return s[..., self.kept, :]

    def transposed(self, x):
        zeros = x.new_zeros(*x.shape[:-2], self.size, x.shape[-1])
        return zeros.index_add(-2, self.kept, x)


class Separable(Operator):
    """vec(S) ↦ vec(A S Bᵀ), row by row: a transform of the rows and columns of an image.

    With orthonormal A, B the columns of the operator are an orthonormal basis of images.
    """

    def __init__(self, A, B):
        super().__init__()
        self.register_buffer("A", A)
        self.register_buffer("B", B)

    @property
    def shape(self):
        return (self.A.shape[0] * self.B.shape[0], self.A.shape[1] * self.B.shape[1])

    def forward(self, s):
        image = s.reshape(*s.shape[:-2], self.A.shape[1], self.B.shape[1])
        return (self.A @ image @ self.B.mT).reshape(*s.shape[:-2], -1, 1)

    def transposed(self, x):
        image = x.reshape(*x.shape[:-2], self.A.shape[0], self.B.shape[0])
        return (self.A.mT @ image @ self.B).reshape(*x.shape[:-2], -1, 1)


class Chain(Operator):
    """s ↦ first @ (second @ s)."""

    def __init__(self, first, second):
        super().__init__()
        if first.shape[1] != second.shape[0]:
            raise ValueError(
                f"second: got shape {tuple(second.shape)}, expected {first.shape[1]} rows to fit "
                f"first, {tuple(first.shape)}"
            )
        self.first, self.second = as_operator(first), as_operator(second)

    @property
    def shape(self):
        return (self.first.shape[0], self.second.shape[1])

    def forward(self, s):
        return self.first(self.second(s))

    def transposed(self, x):
        return self.second.transposed(self.first.transposed(x))


def times(matrix, s):
    """matrix (n, m) times columns (..., m, 1), as one matrix product over the whole batch."""
    if s.ndim > 2 and s.shape[-1] == 1 and matrix.ndim == 2:
        return (s[..., 0] @ matrix.mT)[..., None]
    return matrix @ s


def solve(A, B):
    """A⁻¹B as `torch.linalg.solve`; on a GPU without its look at the pivots, to be waited for.

    There a singular A gives Inf or NaN, on a CPU LinAlgError. A (..., n, n), B (..., n, k) or (n,).
    """
    return torch.linalg.solve_ex(A, B).result if A.is_cuda else torch.linalg.solve(A, B)


def as_operator(H):
    """H as an operator: a single matrix is wrapped in `Matrix`, anything else is left as it is."""
    return Matrix(H) if isinstance(H, torch.Tensor) and H.ndim == 2 else H


def wavelet_basis(n, name="db4", level=None, **kind):
    """The orthonormal wavelet basis Ψ (n, n): signal = Ψ @ coefficients, periodic at the ends.

    Made by PyWavelets from the unit vectors. Raises ValueError if n cannot be halved `level` times.
    """
    wavelet = pywt.Wavelet(name)
    deepest = (n & -n).bit_length() - 1
    level = min(deepest, pywt.dwt_max_level(n, wavelet)) if level is None else level
    if not 1 <= level <= deepest:
        raise ValueError(
            f"level: got {level}, expected 1 to {deepest} (how often n = {n} can be halved)"
        )
    unit = torch.eye(n, dtype=torch.float64).numpy()
    coefficients = pywt.wavedec(unit, wavelet, mode="periodization", level=level)
    analysis = torch.cat([torch.from_numpy(part) for part in coefficients], dim=-1)
    return analysis.to(**kind) if kind else analysis


def dct_basis(n, **kind):
    """The orthonormal cosine basis (DCT-II) as columns (n, n): signal = basis @ coefficients."""
    k, t = torch.arange(n, dtype=torch.float64), torch.arange(n, dtype=torch.float64)[:, None]
    basis = torch.cos(torch.pi / n * (t + 0.5) * k) * (2 / n) ** 0.5
    basis[:, 0] /= 2**0.5
    return basis.to(**kind) if kind else basis
