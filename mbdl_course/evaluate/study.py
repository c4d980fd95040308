"""A study: a pure function of (seed, SNR, n_train, ...) on a grid, in this process or on a cluster.

Its rows go into one CSV file as they are finished. A line is written at once and flushed to the
disk; whatever kills the study, the next call computes only what is missing.
"""

import csv
import functools
import hashlib
import inspect
import io
import itertools
import json
import logging
import os
import queue
import uuid
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .metrics import standard_error

OWN = ("repetition", "seed", "error")  # columns of every row, beside the grid's and the numbers


def sweep(study, grid, repetitions=1, **options):
    """Run a study on every point of a grid, `repetitions` times: the list of `results`, which says
    what the arguments are, in grid order."""
    rows = {row["seed"]: row for row in results(study, grid, repetitions, **options)}
    points = _points(_plain_grid(study, grid, dict(options.get("fixed") or {})))
    seed = options.get("seed", 0)
    return [rows[_seed(seed, point, r)] for point in points for r in range(repetitions)]


def results(
    study,
    grid,
    repetitions=1,
    *,
    seed=0,
    fixed=None,
    workers=1,
    client=None,
    per_task=1,
    path=None,
    progress=True,
):
    """The rows of a study on every point of a grid, `repetitions` times, as they are finished.

    `study(seed=..., **point)` is pure and returns numbers by name: {"nmse_db": ...}. Compare
    methods inside one call, so that all see one draw. `grid` is {name: [values]}; a row is
    {**point, "repetition", "seed", **numbers}. The seed is a hash of the base seed, the point and
    the repetition, and every call has one torch thread: rows depend neither on order nor on
    workers nor on interruptions. A call that raises leaves {"error": text}; the study goes on.
    `fixed` is passed to every call, {"device": "cuda"}, and does not enter the seed.

    `workers` > 1 starts a `cluster` of processes; `client` is a `distributed.Client` of any other,
    or anything with `submit(function, *args)` whose futures have `result` and `add_done_callback`;
    its workers stay with one thread. `per_task` calls travel together: an overhead shared.
    `path` is a CSV file: after an interruption, call again and only what is missing or failed
    runs. It is of one study, grid and number of repetitions, one call at a time, and knows the
    study by name: delete it when the study's code changes.
    Nothing happens until it is iterated; to stop is to close it, and with it what still waits.
    Raises ValueError or TypeError for bad arguments and a file of another study, before computing.
    """
    fixed = dict(fixed or {})
    grid = _plain_grid(study, grid, fixed)
    for name, value in (("repetitions", repetitions), ("workers", workers), ("per_task", per_task)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r}, expected an integer of at least 1")
    if type(seed) is not int:
        raise TypeError(f"seed is {seed!r}, expected an integer")
    if workers > 1 and client is not None:
        raise ValueError(f"client was given beside workers={workers}, expected one of the two")
    try:
        fixed_text = json.dumps(fixed)
    except TypeError as error:
        raise TypeError(f"fixed: {error}, expected numbers and texts") from error
    points = _points(grid)
    call = functools.partial(study, **fixed) if fixed else study
    jobs = {_seed(seed, p, r): (call, p, r) for p in points for r in range(repetitions)}
    file = None
    if path is not None:
        name = f"{study.__module__}.{study.__qualname__}"
        header = {"study": name, "grid": grid, "repetitions": repetitions, "seed": seed}
        header |= {"fixed": json.loads(fixed_text)} if fixed else {}
        file = _File(Path(path), header, jobs)
    stored = {} if file is None else dict(file.rows)
    todo = [(s, *job) for s, job in jobs.items() if s not in stored]
    todo.sort(key=lambda job: job[-1])  # every point once, then all again: stop when it is enough
    bar = tqdm(total=len(jobs), initial=len(stored), disable=not progress)
    failed = 0
    with bar, cluster(workers) if workers > 1 and todo else nullcontext(client) as client:
        yield from stored.values()
        with closing(_here(todo) if client is None else _on(client, todo, per_task)) as finished:
            for row in finished:
                if file is not None:
                    file.append(row)
                if "error" in row:
                    failed += 1
                    bar.set_postfix(failed=failed, refresh=False)
                bar.update()
                yield row
    if file is not None:
        file.replace()


sweep.__signature__ = inspect.signature(results)


@contextmanager
def cluster(workers):
    """A `distributed.Client` of that many processes of one thread each on this machine.

    A worker that dies is started again and its calls are repeated. Keep it open for several sweeps:
    starting costs seconds. Raises ImportError without dask.distributed.
    """
    try:
        from dask import config
        from distributed import Client, LocalCluster
    except ImportError as error:
        cure = 'python -m pip install -c constraints.txt -e ".[scale]"'
        raise ImportError(f"workers need dask.distributed, which is missing: {cure}") from error
    options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    # The limit of memory is the machine's: Dask would stop a worker at its share of it.
    try:
        local = LocalCluster(**options, memory_limit=0, silence_logs=logging.CRITICAL)
    except RuntimeError as error:
        guard = 'if __name__ == "__main__"'
        raise RuntimeError(f"the workers did not start: a script needs {guard}") from error
    # A dead worker is on its way back; Dask would give it up if it is dead again 15 s later.
    with config.set({"distributed.deploy.lost-worker-timeout": "1 day"}):
        with local, Client(local) as client:
            yield client


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


# ---- Calls -------------------------------------------------------------------------------------


def _row(seed, study, point, repetition):
    """One call of the study as a row."""
    row = {**point, "repetition": repetition, "seed": seed}
    try:
        numbers = study(seed=seed, **point).items()
        numbers = {name: v.item() if hasattr(v, "item") else v for name, v in numbers}
        if not all(isinstance(name, str) and name.isprintable() for name in numbers):
            raise TypeError(f"study returned the names {list(numbers)}, expected texts of one line")
        if taken := numbers.keys() & {*row, *OWN}:
            raise ValueError(f"study returned {taken}, which the row has already")
        if not all(isinstance(v, (int, float)) for v in numbers.values()):
            raise TypeError(f"study returned {numbers}, expected numbers")
        return row | numbers
    except (Exception, SystemExit) as error:
        return row | {"error": _told(error)}


def _told(error):
    return " ".join(f"{type(error).__name__}: {error}".split())


def _rows(jobs, key):
    """What a worker does, with one thread: sums depend on their number. It is not given back,
    because another call may be running beside this one. The key tells two submissions apart."""
    torch.set_num_threads(1)
    return [_row(*job) for job in jobs]


def _here(jobs):
    for job in jobs:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            row = _row(*job)
        finally:
            torch.set_num_threads(threads)
        yield row


def _on(client, jobs, per_task):
    """Rows as the client's futures finish; on the way out, what still waits is cancelled."""
    again = []
    for part, result in _answers(client, _parts(jobs, per_task)):
        if isinstance(result, Exception):
            again += part
        else:
            yield from result
    # A call that kills its worker takes others with it: each is asked once more, all alone.
    for job in again:
        for _, result in _answers(client, [[job]]):
            if isinstance(result, Exception):
                seed, _, point, repetition = job
                result = [point | dict(zip(OWN, (repetition, seed, _told(result)), strict=True))]
            yield from result


def _parts(jobs, size):
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]


def _answers(client, parts):
    """(part, rows) as they come; in the place of rows the error, where a part killed workers."""
    done, waiting = queue.SimpleQueue(), {}
    try:
        for k, part in enumerate(parts):
            # A key of its own: Dask would take an equal call for the same one, cancelled or dead.
            waiting[k] = client.submit(_rows, part, uuid.uuid4().hex)
            waiting[k].add_done_callback(lambda future, k=k: done.put((k, future)))
        for _ in parts:
            k, future = done.get()
            try:
                result = future.result()
            except CancelledError:
                raise
            except Exception as error:
                if type(error).__name__ != "KilledWorker":  # of distributed, which may be missing
                    raise
                result = error
            del waiting[k]  # and with it the workers' copy of the rows
            yield parts[k], result
    finally:
        for future in waiting.values():
            if hasattr(future, "cancel"):
                future.cancel()


# ---- The grid ----------------------------------------------------------------------------------


def _plain_grid(study, grid, fixed):
    """The grid as lists of plain values; raises unless `study` can take its points."""
    if not hasattr(study, "__qualname__"):
        raise TypeError(f"study is {study!r}, expected a function; put fixed values into the grid")
    if not isinstance(grid, dict):
        raise TypeError(f"grid is {type(grid).__name__}, expected a dict of lists")
    plain = {}
    for name, values in grid.items():
        if name in OWN:
            raise ValueError(f"grid has the name {name!r}, which the rows use themselves")
        if name in fixed:
            raise ValueError(f"fixed has the name {name!r}, which the grid has already")
        if isinstance(values, str) or not hasattr(values, "__iter__"):
            raise TypeError(f"grid[{name!r}] is {values!r}, expected a list of values")
        plain[name] = [v.item() if hasattr(v, "item") else v for v in values]
        if not all(isinstance(v, (str, int, float)) for v in plain[name]):
            raise TypeError(f"grid[{name!r}] is {plain[name]}, expected numbers or strings")
        if any(isinstance(v, str) and not v.isprintable() for v in plain[name]):
            raise ValueError(f"grid[{name!r}] is {plain[name]}, expected text of one line")
        if (
            not plain[name]
            or len({*plain[name]}) < len(plain[name])
            or any(v != v for v in plain[name])
        ):
            raise ValueError(f"grid[{name!r}] is {plain[name]}, expected distinct values, no NaN")
    try:
        inspect.signature(study).bind(seed=0, **dict.fromkeys({**plain, **fixed}))
    except TypeError as error:
        names = [*plain, *fixed]
        raise TypeError(f"study does not take seed and {names}: {error}") from error
    return plain


def _points(grid):
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _seed(base, point, repetition):
    """63 bits that depend on the values alone: not on their order, nor on 10 being 10.0."""
    point = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in point.items()}
    text = json.dumps([base, point, repetition], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


# ---- The file ----------------------------------------------------------------------------------


class _File:
    """The rows of a study in a CSV file: a line of comment that says whose, the columns, the rows.

    A row is appended by one write. A row with a new name, and the end, replace the file as a whole,
    in grid order: an interrupted study ends with the bytes of an undisturbed one.
    """

    def __init__(self, path, header, jobs):
        """Reads the good rows of a file of this study, up to a line that was torn."""
        self.path, self.jobs, self.rows = path, jobs, {}
        self.first = f"# {json.dumps(header)}\n"
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and not self.first.encode().startswith(data):
            raise ValueError(f"path: {path} is no file of rows, expected a new or a resumable one")
        try:
            first, *lines = (whole or self.first.encode()).decode().split("\n")[:-1]
            found = json.loads(first.removeprefix("# "))
            differ = {name: found.get(name) for name in header if found.get(name) != header[name]}
            if not differ:
                rows = map(self.parsed, csv.DictReader(lines, strict=True))
                self.rows = {row["seed"]: row for row in rows}
        except (ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
            raise ValueError(f"path: {path} is damaged or no file of rows ({error!r})") from error
        if differ:
            raise ValueError(f"path: {path} is of another study, with {differ}, expected {header}")
        self.rows = {seed: row for seed, row in self.rows.items() if "error" not in row}
        self.replace()

    def parsed(self, cells):
        """A row from its cells; what the grid says is taken from there."""
        if None in cells or None in cells.values():
            raise ValueError(f"a line has other columns than the first: {cells}")
        seed = int(cells.pop("seed"))
        _, point, repetition = self.jobs[seed]
        known = point | {"repetition": repetition}
        if any(not _same(cells.pop(name), value) for name, value in known.items()):
            raise ValueError(f"seed {seed} does not belong to its point")
        error = cells.pop("error")
        numbers = {name: json.loads(cell) for name, cell in cells.items() if cell}
        return known | {"seed": seed} | numbers | ({"error": error} if error else {})

    def append(self, row):
        self.rows[row["seed"]] = row
        if not row.keys() <= set(self.columns):
            return self.replace()
        line = self.lines([row])
        with open(self.path, "ab", buffering=0) as file:
            if file.write(line) < len(line):
                raise OSError(f"{self.path} took only a part of a row: is the disk full?")
            os.fsync(file.fileno())

    def replace(self):
        """The whole file anew, beside the old one until it is complete."""
        rows = [self.rows[seed] for seed in self.jobs if seed in self.rows]
        _, point, _ = next(iter(self.jobs.values()))
        seen = dict.fromkeys(name for row in rows for name in row)
        numbers = [name for name in seen if name not in {*point, *OWN}]
        self.columns = [*point, "repetition", "seed", *numbers, "error"]
        new = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            with open(new, "wb") as file:
                names = {name: name for name in self.columns}
                file.write(self.first.encode() + self.lines([names, *rows]))
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)
        finally:
            new.unlink(missing_ok=True)

    def lines(self, rows):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            writer.writerow(_cell(row[name]) if name in row else "" for name in self.columns)
        return text.getvalue().encode("utf-8", "backslashreplace")


def _same(cell, value):
    return cell == value if isinstance(value, str) else json.loads(cell) == value


def _cell(value):
    return value if isinstance(value, str) else json.dumps(value)
