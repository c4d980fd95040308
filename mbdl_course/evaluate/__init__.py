"""Metrics, each defined once, and studies over a grid of settings, here or on a cluster."""

from .metrics import (
    mean_and_error,
    mse,
    nmse_db,
    nmse_db_per_sample,
    psnr_db,
    snr_db,
    standard_error,
    support_f1,
)
from .study import cluster, results, summary, sweep

__all__ = [
    "cluster",
    "mean_and_error",
    "mse",
    "nmse_db",
    "nmse_db_per_sample",
    "psnr_db",
    "results",
    "snr_db",
    "standard_error",
    "summary",
    "support_f1",
    "sweep",
]
