"""How every shipped weight file is made: `python -m mbdl_course weights [NAME...]`.

A recipe is a function of nothing: it draws its problem, trains from seeds, and returns the model
that is shipped with what the manifest says of it. `figures(name, model)` recomputes the figures of
a file on its fixed test set; the tests hold them against the manifest.
"""

import hashlib
import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch
from torch import nn

from mbdl_course import learn
from mbdl_course.networks import parameters

from . import doa, equalize, lowrank, mimo, smoothing, sparse, tracking, unrolling
from .common import MATRIX_SEED, SEEDS, TEST_SEED, VALIDATION_SEED, nmse_db, training_set, values
from .sparse import DEPTHS, SIZES, SNR_DB, heartbeats, noiseless, noisy, wrong_matrix

__all__ = [
    "DEPTHS", "FILES", "MATRIX_SEED", "SEEDS", "SIZES", "SNR_DB", "TEST_SEED", "VALIDATION_SEED",
    "blank", "figures", "heartbeats", "make", "nmse_db", "noiseless", "noisy", "shipped",
    "test_set", "training_set", "values", "wrong_matrix",
]  # fmt: skip

FILES = {
    **doa.FILES,
    **equalize.FILES,
    **lowrank.FILES,
    **mimo.FILES,
    **smoothing.FILES,
    **sparse.FILES,
    **tracking.FILES,
    **unrolling.FILES,
}


def test_set(name):
    """The fixed test set (x, s) of a weight file."""
    return FILES[name].test_set()


def figures(name, model):
    """{part of the model: what it reaches on the fixed test set}: NMSE in dB."""
    data = test_set(name)
    parts = model.items() if isinstance(model, nn.ModuleDict) else [(name, model)]
    return {part: round(FILES[name].figure(network, data), 3) for part, network in parts}


def shipped(name):
    """The shipped model of a name, loaded and checked: the same object its recipe trains.

    Raises ValueError for a name that is not shipped, and what `learn.load` raises.
    """
    if name not in FILES:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(FILES)}")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # as it was trained, whatever a chapter computes in
    try:
        return learn.load(blank(name), name)
    finally:
        torch.set_default_dtype(before)


def blank(name):
    """The model of a name before training, to be filled by `learn.load`."""
    return FILES[name].blank()


def peak_memory():
    """The largest resident set of this process so far in MB; NaN where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def make(names=(), jobs=2):
    """Train and write the named weight files (all by default), each with its manifest entry.

    `jobs` files at a time, each on one thread of its own process: the same bits as one by one.
    """
    unknown = set(names) - FILES.keys()
    if unknown:
        raise ValueError(f"names: got {sorted(unknown)}, expected some of {', '.join(FILES)}")
    if len(names) == 1:
        record(names[0], made(names[0]))
        return
    fresh = {"mp_context": get_context("spawn"), "max_tasks_per_child": 1}  # its memory is its own
    with ProcessPoolExecutor(jobs, **fresh) as pool:
        running = {pool.submit(made, name): name for name in names or FILES}
        for done in as_completed(running):
            record(running[done], done.result())


def made(name):
    """Train and write one weight file; returns its manifest entry."""
    torch.set_num_threads(1)  # small tensors: one thread is faster than two, and repeatable
    start = time.process_time()  # of the one thread, whatever else the machine is doing
    models, facts = FILES[name].train()
    seconds = time.process_time() - start
    path = learn.save(models[0], name)
    spread = [figures(name, model) for model in models]
    print(f"{name}: {parameters(models[0])} parameters, {seconds:.0f} s, {path}", flush=True)
    return {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "command": f"python -m mbdl_course weights {name}",
        "seeds": list(SEEDS[: len(models)]),
        **facts,
        "seconds": round(seconds),
        "seconds_each": round(seconds / len(models), 1),
        "parameters": parameters(models[0]),
        "dtype": "float32; matrices are stored as float16",
        "threads": torch.get_num_threads(),
        "device": "cpu",
        "memory_mb": round(peak_memory()),
        "torch": torch.__version__.split("+")[0],
        # what the file gives back, not what was in memory before it was rounded
        "nmse_db": figures(name, learn.filled(blank(name), path)),
        "nmse_db_by_seed": {part: [f[part] for f in spread if part in f] for part in spread[0]},
    }


def record(name, entry):
    """Put a file's entry into the manifest."""
    path = learn.weights_dir() / "manifest.json"
    entries = json.loads(path.read_text()) if path.exists() else {}
    entries[name] = entry
    learn.replace(path, json.dumps(dict(sorted(entries.items())), indent=1).encode())
