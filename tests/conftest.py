"""Every test: one torch thread, no window, labs that compute at once."""

import os

import torch

os.environ["MPLBACKEND"] = "Agg"
os.environ["MBDL_SYNC"] = "1"
torch.set_num_threads(1)
