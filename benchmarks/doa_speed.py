"""Directions of 1,000 scenes at once against pyroomacoustics, and our own code in a loop.

    python benchmarks/doa_speed.py

Two sources within ±60°, 8 sensors half a wavelength apart, 100 snapshots, 10 dB, from snapshots to
angles; MUSIC scans 361 angles. pyroomacoustics makes its object and tables once, stays on the grid,
and is timed on 200 scenes; "on the grid" is what it does and no more, otherwise ours leaves it too.
"""

import math
from functools import partial

import numpy as np
import torch
from run import main
from timing import Job, Pair

from mbdl_course.doa import (
    beamformer,
    directions,
    esprit,
    estimated,
    maximum_likelihood,
    minima,
    music,
    mvdr,
    noise_projector,
    observed,
    root_music,
    sample_covariance,
    scenes,
    signal_subspace,
    spectrum,
    uniform_linear,
)
from mbdl_course.learn import seeded

HEADS = (beamformer, mvdr, music, root_music, esprit, maximum_likelihood)


def snapshots(count):
    array = uniform_linear(8)
    scene = scenes(count, 2, array, 100, seeded(0), widest=math.radians(60))
    return observed(scene, array, 10.0)


def on_the_grid(x):
    """MUSIC as pyroomacoustics does it: the angles of the grid, ascending."""
    array = uniform_linear(x.shape[-2], dtype=x.real.dtype)
    C, grid = noise_projector(signal_subspace(sample_covariance(x), 2)), directions(array)
    return grid[minima(spectrum(C, array, grid), 2)].sort(-1).values


def pyroomacoustics(ours, dtype, steps, tiny):
    """steps: how many steps of the grid an angle may differ."""
    from pyroomacoustics.doa import MUSIC

    array = uniform_linear(8)
    # speed and frequency 1: a length is a number of wavelengths, bin 1 of 4 is the frequency
    azimuth = np.pi / 2 - directions(array).numpy()
    finder = MUSIC(array.positions.numpy().T, 4, 4, c=1.0, num_src=2, azimuth=azimuth[::-1])
    count, few = (4, 4) if tiny else (1000, 200)
    x = snapshots(count)
    arriving = np.zeros((few, 8, 3, 100), complex)
    arriving[:, :, 1] = (
        x[:few].numpy().conj()
    )  # there a wave that comes earlier turns the other way

    def one(X):
        finder.locate_sources(X, num_src=2, freq_bins=[1])
        return np.resize(np.sort(np.pi / 2 - finder.azimuth_recon), 2)  # where it finds fewer peaks

    def theirs():
        return torch.from_numpy(np.stack([one(X) for X in arriving]))

    def apart(a, b):
        return (a[:few] - b).abs().max().item()

    x = x.to(dtype)
    return Job(partial(ours, x), theirs, apart, (steps + 1e-3) * math.pi / 361, count / few)


def off_the_grid(x):
    return estimated(x, 2, head=music)


def looped(head, tiny):
    count, few = (4, 2) if tiny else (1000, 20)
    x = snapshots(count)

    def loop():
        return torch.stack([estimated(each, 2, head=head) for each in x[:few]])

    def apart(a, b):
        return (a[:few] - b).abs().max().item()

    return Job(lambda: estimated(x, 2, head=head), loop, apart, 1e-8, count / few)


PAIRS = [
    Pair("doa/MUSIC-grid-double", "pyroomacoustics MUSIC",
         partial(pyroomacoustics, on_the_grid, torch.complex128, 0), "pyroomacoustics"),
    Pair("doa/MUSIC-grid-single", "pyroomacoustics MUSIC",
         partial(pyroomacoustics, on_the_grid, torch.complex64, 1), "pyroomacoustics"),
    Pair("doa/MUSIC-off-grid", "pyroomacoustics MUSIC",
         partial(pyroomacoustics, off_the_grid, torch.complex128, 1), "pyroomacoustics"),
    *(Pair(f"doa/{head.__name__}-loop", "ours, one by one", partial(looped, head))
      for head in HEADS),
]  # fmt: skip

if __name__ == "__main__":
    main(["doa"])
