"""Directions of many scenes at once against one by one, as ratios in one run.

    python benchmarks/doa_speed.py [THREADS]

Two sources, 8 sensors half a wavelength apart, 100 snapshots, 10 dB, 1,000 scenes, float64, from
snapshots to angles; MUSIC scans 361 angles. One by one: our own code in a loop, and the MUSIC of
pyroomacoustics where it is installed, its object and tables made once. Theirs stays on the grid,
ours leaves it; "on the grid" is what theirs does and no more, in double and in single precision.
The least of twenty runs each (loops: of two).
Writes benchmarks/results/doa_speed.json.
"""

import json
import math
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from timing import seconds

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
    rmspe,
    root_music,
    sample_covariance,
    scenes,
    signal_subspace,
    spectrum,
    uniform_linear,
)
from mbdl_course.learn import seeded


def peer(array, sources):
    """The MUSIC of pyroomacoustics as a function of one scene's snapshots; None without it."""
    try:
        from pyroomacoustics.doa import MUSIC
    except ImportError:
        return None
    # speed and frequency 1: a length is a number of wavelengths, bin 1 of 4 is the frequency
    azimuth = np.pi / 2 - directions(array).numpy()
    finder = MUSIC(array.positions.numpy().T, 4, 4, c=1.0, num_src=sources, azimuth=azimuth[::-1])

    def one(x):
        X = np.zeros((len(x), 3, x.shape[1]), complex)
        X[:, 1] = x.numpy().conj()  # there a wave that comes earlier turns the other way
        finder.locate_sources(X, num_src=sources, freq_bins=[1])
        found = np.sort(np.pi / 2 - finder.azimuth_recon)
        return np.resize(found, sources)  # where it finds fewer peaks

    return one


def on_the_grid(x):
    """MUSIC as pyroomacoustics does it: the angles of the grid."""
    array = uniform_linear(x.shape[-2], dtype=x.real.dtype)
    C, grid = noise_projector(signal_subspace(sample_covariance(x), 2)), directions(array)
    return grid[minima(spectrum(C, array, grid), 2)]


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    array, count = uniform_linear(8), 1000
    scene = scenes(count, 2, array, 100, seeded(0), widest=math.radians(60))
    x = observed(scene, array, 10.0)
    result = {"threads": threads, "scenes": count, "rows": []}
    for head in (beamformer, mvdr, music, root_music, esprit, maximum_likelihood):
        batch, doa = seconds(lambda: estimated(x, 2, head=head), 20)  # noqa: B023
        some = x[:100] if head is maximum_likelihood else x
        loop, one = seconds(lambda: [estimated(each, 2, head=head) for each in some], 2)  # noqa: B023
        loop *= count / len(some)
        apart = (doa[: len(some)] - torch.stack(one)).abs().max().item()
        row = {"method": head.__name__, "batch_s": batch, "loop_s": loop}
        row |= {"loop_over_batch": loop / batch, "largest_difference": apart}
        if head is music and (finder := peer(array, 2)):
            theirs, found = seconds(lambda: np.stack([finder(each) for each in x]), 2)  # noqa: B023
            apart = (doa - torch.tensor(found)).abs().amax(-1)
            row |= {"pyroomacoustics_s": theirs, "pyroomacoustics_over_batch": theirs / batch,
                    "within_a_step": (apart < math.pi / 361).double().mean().item(),
                    "their_rmspe": rmspe(torch.tensor(found), scene.doa).mean().item(),
                    "our_rmspe": rmspe(doa, scene.doa).mean().item()}  # fmt: skip
            for name, y in (("double", x), ("single", x.to(torch.complex64))):
                same, _ = seconds(lambda: on_the_grid(y), 20)  # noqa: B023
                row[f"on_the_grid_{name}_s"] = same
                row[f"pyroomacoustics_over_on_the_grid_{name}"] = theirs / same
        row = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()}
        print(row, flush=True)
        result["rows"].append(row)
    result["machine"] = {"cores": os.cpu_count(), "python": platform.python_version()}
    for name in ("torch", "pyroomacoustics"):
        try:
            result["machine"][name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            result["machine"][name] = None
    path = Path(__file__).resolve().parent / "results/doa_speed.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
