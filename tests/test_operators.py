import pytest
import scipy.fft
import torch

from mbdl_course.operators import (
    Chain,
    Mask,
    Matrix,
    Separable,
    as_operator,
    dct_basis,
    wavelet_basis,
)

g = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=g, dtype=torch.float64)


# every operator of the package stands here
OPERATORS = {
    "tensor": normal(5, 8),
    "Matrix": Matrix(normal(5, 8)),
    "Mask": Mask(torch.tensor([6, 0, 3]), 8),
    "Separable": Separable(normal(3, 4), normal(5, 2)),
    "Chain": Chain(Mask(torch.tensor([1, 4, 5, 9]), 12), Separable(normal(3, 2), normal(4, 4))),
}


@pytest.mark.parametrize("H", OPERATORS.values(), ids=OPERATORS)
def test_transpose_is_the_adjoint(H):
    n, m = H.shape
    u, v = normal(6, m, 1), normal(6, n, 1)
    left = ((H @ u) * v).sum((-2, -1))
    right = (u * (H.mT @ v)).sum((-2, -1))
    torch.testing.assert_close(left, right, atol=1e-12, rtol=1e-12)
    assert H.mT.shape == (m, n)


@pytest.mark.parametrize("name", [n for n in OPERATORS if n != "tensor"])
def test_operator_equals_its_matrix(name):
    H = OPERATORS[name]
    dense = H.dense(dtype=torch.float64)
    s = normal(3, 2, H.shape[1], 1)
    torch.testing.assert_close(H @ s, dense @ s)
    torch.testing.assert_close(H.mT.mT @ s, dense @ s)
    torch.testing.assert_close((H @ s)[1, 0], H @ s[1, 0])  # a batch of one is a slice


def test_as_operator_wraps_one_matrix_only():
    assert isinstance(as_operator(normal(2, 3)), Matrix)
    batch = normal(4, 2, 3)
    assert as_operator(batch) is batch


@pytest.mark.parametrize("kept", [[0, 8], [-1], [], [[1, 2]]])
def test_mask_refuses_bad_indices(kept):
    with pytest.raises(ValueError, match="kept: got"):
        Mask(torch.tensor(kept), 8)


def test_chain_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="second: got shape"):
        Chain(normal(3, 4), normal(5, 2))


@pytest.mark.parametrize("name", ["haar", "db4", "sym8"])
def test_wavelet_basis_is_orthonormal(name):
    basis = wavelet_basis(128, name)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(128).double(), atol=1e-10, rtol=0)


def test_wavelet_basis_is_pywavelets_synthesis():
    import pywt

    coefficients = normal(64)
    parts = [coefficients[:16], coefficients[16:32], coefficients[32:]]
    expected = pywt.waverec([p.numpy() for p in parts], "db4", mode="periodization")
    basis = wavelet_basis(64, "db4", level=2)
    torch.testing.assert_close(basis @ coefficients, torch.from_numpy(expected), atol=1e-10, rtol=0)


@pytest.mark.parametrize(("n", "level"), [(64, 7), (12, 3), (64, 0)])
def test_wavelet_basis_refuses_impossible_levels(n, level):
    with pytest.raises(ValueError, match=f"level: got {level}"):
        wavelet_basis(n, "haar", level)


def test_dct_basis_is_scipys():
    coefficients = normal(32)
    expected = torch.from_numpy(scipy.fft.idct(coefficients.numpy(), norm="ortho"))
    torch.testing.assert_close(dct_basis(32) @ coefficients, expected)


def test_operators_follow_dtype_and_state_dict():
    H = Chain(Mask(torch.tensor([0, 2]), 4), Separable(normal(2, 2), normal(2, 2))).float()
    assert (H @ torch.ones(4, 1)).dtype == torch.float32
    assert len(H.state_dict()) == 3
