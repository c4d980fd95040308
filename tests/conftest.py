"""Every test: one torch thread, no window, labs that compute at once."""

import os

import torch

os.environ["MPLBACKEND"] = "Agg"
os.environ["MBDL_SYNC"] = "1"
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """The browser tests first: they take longest, and one of several processes has them all."""
    items.sort(key=lambda item: "browser" not in item.path.parts)
