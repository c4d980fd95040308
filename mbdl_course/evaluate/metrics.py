"""Metrics, each defined once.

Signals are columns (..., m, 1), leading dimensions are the batch. Estimate first, truth second.
Metrics raise TypeError or ValueError unless both are finite and alike in shape, dtype and device.
"""

import torch


def mse(s_hat, s):
    """Mean squared error over all entries, mean |ŝ - s|²; any shape, a 0-dim tensor."""
    _check_pair(s_hat=s_hat, s=s)
    return (s_hat - s).abs().square().mean()


def nmse_db(s_hat, s):
    """Normalised mean squared error of a batch in dB, as a ratio of sums.

    10 log10( Σ ‖ŝᵢ - sᵢ‖² / Σ ‖sᵢ‖² ): strong signals weigh more; -inf where ŝ = s.
    Not `nmse_db_per_sample`: say which one is meant. Raises ValueError where s is all zero.
    """
    error, energy = _energies(s_hat, s)
    if energy.sum() == 0:
        raise ValueError("s is all zero, expected a reference with energy")
    return 10 * torch.log10(error.sum() / energy.sum())


def nmse_db_per_sample(s_hat, s):
    """Mean over the batch of each signal's own NMSE in dB, mean 10 log10( ‖ŝᵢ - sᵢ‖² / ‖sᵢ‖² ).

    By Jensen at most 10 log10 mean( ‖ŝᵢ - sᵢ‖² / ‖sᵢ‖² ), so at most `nmse_db` where all signals
    have one energy; where energies differ, either may be the larger. One exact signal gives -inf.
    Raises ValueError where a signal of s is all zero.
    """
    return -snr_db(s_hat, s).mean()


def snr_db(s_hat, s):
    """Reconstruction SNR of each signal, 10 log10( ‖s‖² / ‖ŝ - s‖² ) in dB, shape (...).

    +inf where ŝ = s. Raises ValueError where a signal of s is all zero.
    """
    error, energy = _energies(s_hat, s)
    if (zeros := (energy == 0).sum()) > 0:
        raise ValueError(f"s has {zeros} all-zero signals, expected energy in each")
    return 10 * torch.log10(energy / error)


def psnr_db(image_hat, image, peak):
    """Peak SNR of each image, 10 log10( peak² / mean (x̂ - x)² ) in dB.

    Images (..., C, H, W) give (...); one grey image (H, W) gives a 0-dim tensor. `peak` is the
    largest value an image can take: 1 for [0, 1], 255 for bytes.
    """
    _check_pair(image_hat=image_hat, image=image)
    if image.ndim < 2:
        raise ValueError(f"image has shape {tuple(image.shape)}, expected (..., C, H, W) or (H, W)")
    if not 0 < peak < float("inf"):
        raise ValueError(f"peak is {peak}, expected a positive number")
    error = (image_hat - image).abs().square().flatten(-min(image.ndim, 3)).mean(-1)
    return 10 * torch.log10(peak**2 / error)


def support_f1(s_hat, s, tolerance):
    """F1 score, 0 to 1, of the support S = {i: |sᵢ| > tolerance} of each signal, shape (...).

    2 |Ŝ ∩ S| / (|Ŝ| + |S|); 1 where both are empty.
    """
    _check_columns(s_hat, s)
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance is {tolerance}, expected a number of at least 0")
    found, wanted = ((v.abs() > tolerance).squeeze(-1) for v in (s_hat, s))
    both, sizes = (found & wanted).sum(-1), found.sum(-1) + wanted.sum(-1)
    return torch.where(sizes == 0, 1, (2 * both).to(s.real.dtype) / sizes)


def standard_error(values):
    """Standard error of the mean of N numbers, sqrt( Σ (vᵢ - v̄)² / (N (N - 1)) ); NaN for N = 1."""
    values = torch.as_tensor(values, dtype=torch.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(
            f"values have shape {tuple(values.shape)}, expected (N,) with N at least 1"
        )
    return ((values - values.mean()).square().sum() / len(values) / (len(values) - 1)).sqrt()


def mean_and_error(rows):
    """Mean over the last dimension, e.g. seeds, and its standard error: two float64 tensors."""
    rows = torch.as_tensor(rows, dtype=torch.float64)
    return rows.mean(-1), rows.std(-1) / rows.shape[-1] ** 0.5


def _check_pair(**pair):
    for name, value in pair.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} is {type(value).__name__}, expected a tensor")
        if not (value.is_floating_point() or value.is_complex()) or not value.numel():
            came = f"{value.dtype} of shape {tuple(value.shape)}"
            raise ValueError(f"{name} is {came}, expected real or complex floats, not empty")
    (name, a), (other, b) = pair.items()
    for what in ("shape", "dtype", "device"):
        if (came := getattr(a, what)) != (expected := getattr(b, what)):
            raise ValueError(f"{name} has {what} {came}, expected that of {other}: {expected}")
    for name, value in pair.items():
        if bad := (~value.isfinite()).sum():
            raise ValueError(f"{name} has {bad} NaN or infinite entries, expected none")


def _check_columns(s_hat, s):
    _check_pair(s_hat=s_hat, s=s)
    if s.ndim < 2 or s.shape[-1] != 1:
        raise ValueError(f"s has shape {tuple(s.shape)}, expected columns (..., m, 1)")


def _energies(s_hat, s):
    """‖ŝ - s‖² and ‖s‖² of each signal, shape (...)."""
    _check_columns(s_hat, s)
    return tuple(v.abs().square().sum((-2, -1)) for v in (s_hat - s, s))
