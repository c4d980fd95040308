"""Metrics, each defined once, and studies over a grid of settings.

Signals are columns (..., m, 1), leading dimensions are the batch. Estimate first, truth second.
Metrics raise TypeError or ValueError unless both are finite and alike in shape, dtype and device.
"""

import hashlib
import inspect
import itertools
import json
import os
import queue
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from pathlib import Path

import torch
from tqdm.auto import tqdm


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


def sweep(
    study, grid, repetitions=1, *, seed=0, workers=1, executor=None, path=None, progress=True
):
    """Run a study on every point of a grid, `repetitions` times; rows in grid order.

    `study(seed=..., **point)` is pure and returns numbers by name: {"nmse_db": ...}. Compare
    methods inside one call, so that all see one draw. `grid` is {name: [values]}; a row is
    {**point, "repetition", "seed", **numbers}. The seed is a hash of the base seed, the point and
    the repetition, and every call has one torch thread: rows depend neither on order nor on
    workers nor on interruptions. A call that raises leaves {"error": text}; the study goes on.

    `workers` > 1 uses processes; `executor` is anything with `submit(function, *args)` whose
    futures have `result` and `add_done_callback`. `path` is a JSON-lines file that gets each row
    as it is finished: after an interruption, call again and only what is missing or failed runs.
    It knows the study by name: delete it when the study's code changes.
    Raises ValueError or TypeError for bad arguments and a file of another study, before computing.
    """
    grid = _plain_grid(study, grid)
    for name, value in (("repetitions", repetitions), ("workers", workers)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r}, expected an integer of at least 1")
    if type(seed) is not int:
        raise TypeError(f"seed is {seed!r}, expected an integer")
    if workers > 1 and executor is not None:
        raise ValueError(f"executor was given beside workers={workers}, expected one of the two")
    if workers > 1 and not _importable(study):
        raise ValueError("study cannot be imported by workers: move it to a module, or workers=1")
    points = [dict(zip(grid, p, strict=True)) for p in itertools.product(*grid.values())]
    jobs = {_seed(seed, p, r): (study, p, r) for p in points for r in range(repetitions)}
    rows = {}
    if path is not None:
        name = f"{study.__module__}.{study.__qualname__}"
        header = {"study": name, "grid": grid, "repetitions": repetitions, "seed": seed}
        rows = _resume(Path(path), header, jobs)
    todo = [(s, *job) for s, job in jobs.items() if s not in rows]
    pool = None
    if workers > 1:
        executor = pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker)
    finished = (_row(*job) for job in todo) if executor is None else _on(executor, todo)
    bar = tqdm(total=len(jobs), initial=len(rows), disable=not progress)
    failed = 0
    try:
        for row in finished:
            if path is not None:
                _append(path, row)
            rows[row["seed"]] = row
            if "error" in row:
                failed += 1
                bar.set_postfix(failed=failed, refresh=False)
            bar.update()
    finally:
        bar.close()
        finished.close()
        if pool is not None:
            pool.shutdown(cancel_futures=True)
    return [rows[s] for s in jobs]


def summary(rows, by, of="nmse_db"):
    """Mean and standard error of one number over the rows that agree in the names `by`.

    One row {**names, "mean", "standard_error", "count", "failed"} per group, in order of
    appearance; rows with an error count as failed only, and NaN stands where none is left.
    """
    groups = {}
    for row in rows:
        if missing := {*by, *([] if "error" in row else [of])} - row.keys():
            raise ValueError(f"rows have no {', '.join(sorted(missing))}, only {', '.join(row)}")
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    lines = []
    for key, group in groups.items():
        values = [row[of] for row in group if "error" not in row]
        line = dict(zip(by, key, strict=True))
        line["mean"] = torch.tensor(values, dtype=torch.float64).mean().item()
        line["standard_error"] = standard_error(values or [float("nan")]).item()
        lines.append(line | {"count": len(values), "failed": len(group) - len(values)})
    return lines


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


def _plain_grid(study, grid):
    """The grid as lists of plain values; raises unless `study` can take its points."""
    if not hasattr(study, "__qualname__"):
        raise TypeError(f"study is {study!r}, expected a function; put fixed values into the grid")
    if not isinstance(grid, dict):
        raise TypeError(f"grid is {type(grid).__name__}, expected a dict of lists")
    plain = {}
    for name, values in grid.items():
        if name in ("seed", "repetition", "error"):
            raise ValueError(f"grid has the name {name!r}, which the rows use themselves")
        if isinstance(values, str) or not hasattr(values, "__iter__"):
            raise TypeError(f"grid[{name!r}] is {values!r}, expected a list of values")
        plain[name] = [v.item() if hasattr(v, "item") else v for v in values]
        if not all(isinstance(v, (str, int, float)) for v in plain[name]):
            raise TypeError(f"grid[{name!r}] is {plain[name]}, expected numbers or strings")
        if not plain[name] or len(set(plain[name])) < len(plain[name]):
            raise ValueError(f"grid[{name!r}] is {plain[name]}, expected distinct values")
    try:
        inspect.signature(study).bind(seed=0, **dict.fromkeys(plain))
    except TypeError as error:
        raise TypeError(f"study does not take seed and {list(plain)}: {error}") from error
    return plain


def _importable(study):
    """Whether a fresh process finds the study by name: no lambda, nothing from a notebook cell."""
    in_session = study.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__")
    return not in_session and "<" not in study.__qualname__


def _seed(base, point, repetition):
    """63 bits that depend on the values alone: not on their order, nor on 10 being 10.0."""
    point = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in point.items()}
    text = json.dumps([base, point, repetition], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def _row(seed, study, point, repetition):
    """One call of the study as a row; one thread, because sums depend on their number."""
    row = {**point, "repetition": repetition, "seed": seed}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        numbers = study(seed=seed, **point).items()
        numbers = {name: v.item() if hasattr(v, "item") else v for name, v in numbers}
        if taken := numbers.keys() & {*row, "error"}:
            raise ValueError(f"study returned {taken}, which the row has already")
        if not all(isinstance(v, (int, float)) for v in numbers.values()):
            raise TypeError(f"study returned {numbers}, expected numbers")
        return row | numbers
    except Exception as error:
        return row | {"error": f"{type(error).__name__}: {error}"}
    finally:
        torch.set_num_threads(threads)


def _on(executor, jobs):
    """Rows as the executor's futures finish; on the way out, what still waits is cancelled."""
    done, futures = queue.SimpleQueue(), []
    try:
        for job in jobs:
            futures.append(executor.submit(_row, *job))
            futures[-1].add_done_callback(done.put)
        for _ in futures:
            yield done.get().result()
    finally:
        for future in futures:
            if hasattr(future, "cancel"):
                future.cancel()


def _start_worker():
    """One thread; silent at an interrupt; and no life after a parent that was killed outright."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()


def _append(path, row):
    """One line in one write, on the disk before it returns."""
    line = (json.dumps(row) + "\n").encode()
    with open(path, "ab", buffering=0) as file:
        if file.write(line) < len(line):
            raise OSError(f"{path} took only a part of a row: is the disk full?")
        os.fsync(file.fileno())


def _resume(path, header, jobs):
    """The good rows in the file, by seed; cuts a torn last line and writes a missing header."""
    data = path.read_bytes() if path.exists() else b""
    end = data.rfind(b"\n") + 1
    try:
        found, *rows = map(json.loads, data[:end].splitlines()) if end else [header]
        rows = {row["seed"]: row for row in rows}
        differ = {name: found.get(name) for name in header if found.get(name) != header[name]}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"path: {path} is damaged or no file of rows ({error!r})") from error
    if differ or rows.keys() - jobs.keys():
        raise ValueError(f"path: {path} is of another study, with {differ}, expected {header}")
    if not end and not (json.dumps(header) + "\n").encode().startswith(data):
        raise ValueError(f"path: {path} is no file of rows, expected a new or a resumable one")
    if end < len(data):
        os.truncate(path, end)
    if not end:
        _append(path, header)
    return {seed: row for seed, row in rows.items() if "error" not in row}
