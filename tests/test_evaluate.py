import functools
import math

import numpy as np
import pytest
import torch

from mbdl_course import evaluate
from mbdl_course.evaluate import (
    mse,
    nmse_db,
    nmse_db_per_sample,
    psnr_db,
    snr_db,
    standard_error,
    support_f1,
)

# Metrics


@pytest.fixture(params=[torch.float32, torch.float64, torch.complex128], ids=str)
def pair(request):
    generator = torch.Generator().manual_seed(1)
    s = torch.randn(3, 4, 7, 1, generator=generator, dtype=torch.float64).to(request.param)
    w = torch.randn(3, 4, 7, 1, generator=generator, dtype=torch.float64).to(request.param)
    return s + 0.1 * w * (1j if s.is_complex() else 1), s


def test_metrics_by_hand():
    s = torch.tensor([[[3.0], [4.0]], [[0.0], [1.0]]])  # energies 25 and 1
    s_hat = torch.tensor([[[3.0], [3.5]], [[0.1], [1.0]]])  # errors 0.25 and 0.01: -20 dB each
    assert torch.allclose(snr_db(s_hat, s), torch.tensor([20.0, 20.0]))
    assert math.isclose(nmse_db_per_sample(s_hat, s), -20, abs_tol=1e-4)
    assert math.isclose(nmse_db(s_hat, s), 10 * math.log10(0.26 / 26), abs_tol=1e-4)
    assert math.isclose(mse(s_hat, s), 0.26 / 4, rel_tol=1e-5)


def test_definitions_agree(pair):
    s_hat, s = pair
    nmse = ((s_hat - s).abs() ** 2).sum((-2, -1)) / (s.abs() ** 2).sum((-2, -1))
    torch.testing.assert_close(snr_db(s_hat, s), -10 * nmse.log10())
    torch.testing.assert_close(nmse_db_per_sample(s_hat, s), 10 * nmse.log10().mean())
    torch.testing.assert_close(nmse_db(s_hat[1, 2], s[1, 2]), -snr_db(s_hat, s)[1, 2])
    torch.testing.assert_close(mse(s_hat, s), ((s_hat - s).abs() ** 2).mean())
    assert snr_db(s_hat, s).shape == (3, 4) and support_f1(s_hat, s, 0.5).shape == (3, 4)


def test_metrics_keep_the_dtype_and_the_inputs(pair):
    before = [v.clone() for v in pair]
    for value in (mse(*pair), nmse_db(*pair), snr_db(*pair), support_f1(*pair, 0.5)):
        assert value.dtype == pair[1].real.dtype
    assert all(torch.equal(a, b) for a, b in zip(pair, before, strict=True))


def test_the_two_nmse_differ_either_way():
    ratios = torch.tensor([0.5, 0.001, 0.02], dtype=torch.float64)

    def both(energies):
        s = energies.sqrt().reshape(-1, 1, 1)
        s_hat = s + (ratios * energies).sqrt().reshape(-1, 1, 1)
        return nmse_db(s_hat, s), nmse_db_per_sample(s_hat, s)

    ratio_of_sums, mean_of_db = both(torch.ones(3, dtype=torch.float64))
    assert mean_of_db < ratio_of_sums  # Jensen: one energy
    torch.testing.assert_close(ratio_of_sums, 10 * ratios.mean().log10())
    ratio_of_sums, mean_of_db = both(torch.tensor([1.0, 100.0, 1.0], dtype=torch.float64))
    assert mean_of_db > ratio_of_sums  # the strong signal is the well recovered one


def test_exact_recovery():
    s = torch.ones(2, 3, 1)
    assert nmse_db(s, s) == nmse_db_per_sample(s, s) == -math.inf
    assert (snr_db(s, s) == math.inf).all() and mse(s, s) == 0
    assert psnr_db(s, s, peak=1) == math.inf


def test_metrics_scale_out():
    generator = torch.Generator().manual_seed(0)
    s, s_hat = torch.randn(2, 5, 9, 1, generator=generator, dtype=torch.float64)
    for metric in (nmse_db, nmse_db_per_sample, snr_db):
        torch.testing.assert_close(metric(1e3 * s_hat, 1e3 * s), metric(s_hat, s))


def test_nmse_has_a_gradient():
    s = torch.ones(2, 3, 1, dtype=torch.float64)
    s_hat = torch.full_like(s, 0.7).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: nmse_db(v, s), s_hat)


def test_psnr():
    image = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    image_hat = image + torch.tensor([0.1, 0.01], dtype=torch.float64).reshape(2, 1, 1, 1)
    expected = torch.tensor([20.0, 40.0], dtype=torch.float64)
    torch.testing.assert_close(psnr_db(image_hat, image, peak=1), expected)
    torch.testing.assert_close(psnr_db(255 * image_hat, 255 * image, peak=255), expected)
    torch.testing.assert_close(psnr_db(image_hat[0, 0], image[0, 0], peak=1), expected[0])


def test_support_f1():
    s = torch.tensor([[0.0, 1, 0, -2], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)[..., None]
    s_hat = torch.tensor([[0.05, 3, 1, 0], [0, 0.09, 0, 0], [1, 1, 1, 0]])[..., None].to(s)
    f1 = support_f1(s_hat, s, tolerance=0.1)
    torch.testing.assert_close(f1, torch.tensor([2 / 4, 1, 6 / 7], dtype=torch.float64))
    assert support_f1(s_hat, s, tolerance=0.0)[1] == 0
    sklearn = pytest.importorskip("sklearn.metrics")
    oracle = sklearn.f1_score(s[0, :, 0].abs() > 0.1, s_hat[0, :, 0].abs() > 0.1)
    assert math.isclose(f1[0], oracle)


def test_standard_error():
    assert math.isclose(standard_error([1, 2, 3, 4]), math.sqrt(5 / 3 / 4))
    assert standard_error(torch.full((5,), 2.0)) == 0
    assert math.isnan(standard_error([1.0]))
    for bad in ([], [[1.0, 2.0]], 3.0):
        with pytest.raises(ValueError, match="values have shape"):
            standard_error(bad)


COLUMN_METRICS = [
    nmse_db,
    nmse_db_per_sample,
    snr_db,
    functools.partial(support_f1, tolerance=0.1),
]
good = torch.ones(2, 3, 1)


@pytest.mark.parametrize("metric", [mse, *COLUMN_METRICS])
@pytest.mark.parametrize(
    ("s_hat", "s", "kind", "message"),
    [
        ([1.0], good, TypeError, "s_hat is list"),
        (good, good.numpy(), TypeError, "s is ndarray"),
        (good.int(), good.int(), ValueError, "s_hat is torch.int32"),
        (good, good.bool(), ValueError, "s is torch.bool"),
        (good[:, :2], good, ValueError, "s_hat has shape .*expected that of s"),
        (good[:1], good, ValueError, "s_hat has shape"),  # would broadcast
        (good.double(), good, ValueError, "s_hat has dtype torch.float64, expected that of s"),
        (good.to("meta"), good, ValueError, "s_hat has device meta, expected that of s: cpu"),
        (good[:0], good[:0], ValueError, "s_hat is .*not empty"),
        (good * math.nan, good, ValueError, "s_hat has 6 NaN or infinite"),
        (good, good / torch.tensor([1.0, 0, 1])[:, None], ValueError, "s has 2 NaN or infinite"),
    ],
)
def test_metrics_bad_input(metric, s_hat, s, kind, message):
    with pytest.raises(kind, match=message):
        metric(s_hat, s)


@pytest.mark.parametrize("metric", COLUMN_METRICS)
@pytest.mark.parametrize("shape", [(5,), (5, 2), (3, 1, 2)])
def test_signals_are_columns(metric, shape):
    with pytest.raises(ValueError, match=r"s has shape .* expected columns \(..., m, 1\)"):
        metric(torch.ones(shape), torch.ones(shape))


def test_zero_reference():
    s = good.clone()
    s[0] = 0
    assert nmse_db(good, s) == 0  # the batch has energy, though one signal has none
    with pytest.raises(ValueError, match="s is all zero"):
        nmse_db(good, 0 * good)
    for metric in (snr_db, nmse_db_per_sample):
        with pytest.raises(ValueError, match="s has 1 all-zero signals"):
            metric(good, s)


@pytest.mark.parametrize("peak", [0, -1, math.nan, math.inf])
def test_bad_peak(peak):
    with pytest.raises(ValueError, match="peak is"):
        psnr_db(good, good, peak)


def test_bad_images_and_tolerance():
    with pytest.raises(ValueError, match="image_hat has shape"):
        psnr_db(good[:1], good, 1)
    with pytest.raises(ValueError, match="image has shape"):
        psnr_db(good[0, :, 0], good[0, :, 0], 1)
    for tolerance in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="tolerance is"):
            support_f1(good, good, tolerance)


def test_mean_and_error_are_numpys():
    rows = np.random.default_rng(0).normal(size=(3, 7))
    mean, error = evaluate.mean_and_error(rows)
    np.testing.assert_allclose(mean, rows.mean(-1))
    np.testing.assert_allclose(error, rows.std(-1, ddof=1) / 7**0.5)
