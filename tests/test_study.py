"""Studies over a grid: the same rows in one process, on a cluster, and after any interruption."""

import csv
import functools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import dask
import psutil
import pytest
import torch

from mbdl_course.evaluate import cluster, results, study, summary, sweep

# Sweeps. The studies stand at module level, where worker processes find them.

GRID = {"snr_db": [0, 10.5, math.inf], "method": ["ista", "fista"]}


def noisy(seed, snr_db, method):
    if method == "fista" and snr_db == 0:
        raise ArithmeticError("does not converge")
    v = torch.randn(999, generator=torch.Generator().manual_seed(seed))
    threads = torch.get_num_threads()
    return {"nmse_db": v.mean() - snr_db, "count": v.numel(), "good": v[0] > 0, "threads": threads}


def dying(seed, n):
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"n_seen": n}


def echo(seed, n):
    return {"n_seen": n}


quiet = functools.partial(sweep, progress=False)


@pytest.fixture(scope="module")
def rows():
    return quiet(noisy, GRID, repetitions=2)


def test_rows_are_in_grid_order_and_complete(rows):
    assert [(r["snr_db"], r["method"], r["repetition"]) for r in rows] == [
        (snr, method, i) for snr in GRID["snr_db"] for method in GRID["method"] for i in range(2)
    ]
    assert len({row["seed"] for row in rows}) == len(rows)
    assert all(0 <= row["seed"] < 2**63 for row in rows)
    added = {"repetition", "seed", "nmse_db", "count", "good", "threads"}
    assert rows[0].keys() == GRID.keys() | added


def test_row_is_what_the_study_returns(rows):
    row = rows[-1]
    alone = noisy(row["seed"], row["snr_db"], row["method"])
    assert row["count"] == 999 and row["good"] is alone["good"].item()
    assert row["nmse_db"] == -math.inf and isinstance(row["nmse_db"], float)


def test_a_failing_point_is_recorded(rows):
    failed = [row for row in rows if "error" in row]
    assert [(row["snr_db"], row["method"]) for row in failed] == [(0, "fista")] * 2
    assert all(row["error"] == "ArithmeticError: does not converge" for row in failed)
    assert all("nmse_db" not in row for row in failed)


def test_seeds_belong_to_the_values(rows):
    seeds = {(r["snr_db"], r["method"], r["repetition"]): r["seed"] for r in rows}
    turned = {"method": ["fista", "ista"], "snr_db": torch.tensor([10.5, 0.0, 20.0])}
    for row in quiet(noisy, turned, repetitions=3):
        known = seeds.get((row["snr_db"], row["method"], row["repetition"]))
        assert known in (None, row["seed"])
    assert {r["seed"] for r in quiet(noisy, GRID, 2, seed=1)}.isdisjoint(seeds.values())
    # Frozen: a change of the hash would silently change every stored result.
    assert seeds[0, "ista", 0] == study._seed(0, {"snr_db": 0.0, "method": "ista"}, 0)
    assert seeds[0, "ista", 0] == 2015628179803849296


@pytest.fixture(scope="module")
def two():
    with cluster(2) as client:
        yield client


def test_two_workers_give_the_same_rows(rows, tmp_path, two):
    path = tmp_path / "rows.csv"
    assert quiet(noisy, GRID, repetitions=2, client=two, path=path) == rows
    assert quiet(noisy, GRID, repetitions=2, path=path) == rows


@pytest.mark.parametrize("per_task", [3, 100])
def test_calls_that_travel_together_give_the_same_rows(rows, two, per_task):
    assert quiet(noisy, GRID, repetitions=2, client=two, per_task=per_task) == rows


def test_eight_workers_give_the_same_bytes(rows, tmp_path):
    one, eight = tmp_path / "one.csv", tmp_path / "eight.csv"
    quiet(noisy, GRID, repetitions=2, path=one)
    assert quiet(noisy, GRID, repetitions=2, workers=8, path=eight) == rows
    assert eight.read_bytes() == one.read_bytes()


def test_a_study_of_a_notebook_cell_goes_to_workers(two, monkeypatch):
    """Dask sends what cannot be imported as code, with the values it closes over."""
    scale = 3

    def cell(seed, n):
        return {"value": scale * n}

    monkeypatch.setattr(cell, "__module__", "__main__")
    assert [row["value"] for row in quiet(cell, {"n": [1, 2]}, client=two)] == [3, 6]


def test_any_client(rows):
    class Client:  # no more than the contract
        def submit(self, function, *arguments):
            future = Future()
            future.set_result(function(*arguments))
            return Bare(future)

    class Bare:
        def __init__(self, future):
            self.result = future.result
            self.add_done_callback = lambda call: future.add_done_callback(lambda _: call(self))

    before = torch.get_num_threads()
    try:
        assert quiet(noisy, GRID, repetitions=2, client=Client()) == rows
        with ThreadPoolExecutor(2) as executor:
            assert quiet(noisy, GRID, repetitions=2, client=executor) == rows
            assert executor.submit(int).result() == 0  # it is the caller's to shut down
    finally:
        torch.set_num_threads(before)


def test_one_thread_whatever_the_session_has(rows):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert quiet(noisy, GRID, repetitions=2) == rows
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert rows[0]["threads"] == 1


def test_progress(capsys):
    sweep(noisy, GRID)
    assert "6/6" in capsys.readouterr().err
    quiet(noisy, GRID)
    assert not capsys.readouterr().err


def test_file_is_a_plain_table(rows, tmp_path):
    path = tmp_path / "rows.csv"
    quiet(noisy, GRID, repetitions=2, path=path)
    first, *lines = path.read_text().splitlines()
    assert json.loads(first[2:])["grid"] == GRID
    table = list(csv.DictReader(lines))
    names = ["snr_db", "method", "repetition", "seed", "nmse_db", "count", "good", "threads"]
    assert list(table[0]) == [*names, "error"] and len(table) == len(rows)
    for cells, row in zip(table, rows, strict=True):
        assert cells["method"] == row["method"] and float(cells["snr_db"]) == row["snr_db"]
        if "error" in row:
            assert cells["error"] == row["error"] and cells["nmse_db"] == ""
        else:
            assert float(cells["nmse_db"]) == row["nmse_db"]


def test_file_resumes_at_every_cut(rows, tmp_path):
    path = tmp_path / "rows.csv"
    assert quiet(noisy, GRID, repetitions=2, path=path) == rows
    whole = path.read_bytes()
    assert whole.count(b"\n") == 2 + len(rows)
    for cut in sorted({0, 1, *range(0, len(whole), 37), len(whole) - 1}):
        path.write_bytes(whole[:cut])
        assert quiet(noisy, GRID, repetitions=2, path=path) == rows
        assert path.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]


def test_numbers_that_only_some_points_have(tmp_path):
    def some(seed, n):
        return {"odd": n} if n % 2 else {"even": n, "value": float("nan")}

    path = tmp_path / "rows.csv"
    rows = quiet(some, {"n": [1, 2, 3]}, path=path)
    again = quiet(some, {"n": [1, 2, 3]}, path=path)
    assert repr(again) == repr(rows) and "odd" not in again[1] and math.isnan(again[1]["value"])
    assert path.read_text().splitlines()[1] == "n,repetition,seed,odd,even,value,error"


def test_text_that_a_table_has_to_quote(tmp_path):
    def study(seed, name):
        if "," in name:
            raise ValueError('two\nlines, "quoted"\x85\ud800')
        return {"length": len(name)}

    path, grid = tmp_path / "rows.csv", {"name": ['a "b"', "c,d", "ρ = 1", ""]}
    rows = quiet(study, grid, path=path)
    assert rows[1]["error"] == 'ValueError: two lines, "quoted" \ud800'
    before = path.read_bytes()
    assert [r.get("length") for r in quiet(study, grid, path=path)] == [5, None, 5, 0]
    assert path.read_bytes() == before


def test_only_what_is_missing_or_failed_runs(tmp_path, monkeypatch):
    path, calls = tmp_path / "rows.csv", []

    @functools.wraps(noisy)
    def counted(**point):
        calls.append(point)
        return noisy(**point)

    first = quiet(counted, GRID, path=path)
    assert len(calls) == 6
    again = quiet(counted, GRID, path=str(path))
    assert again == first and [c["method"] for c in calls[6:]] == ["fista"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"study": echo, "grid": {"n": [1, 2, 4]}}, "grid"),
        ({"study": echo, "grid": {"n": [2, 1, 3]}}, "grid"),
        ({"study": dying, "grid": {"n": [1, 2, 3]}}, "study"),
        ({"study": echo, "grid": {"n": [1, 2, 3]}, "repetitions": 2}, "repetitions"),
        ({"study": echo, "grid": {"n": [1, 2, 3]}, "seed": 5}, "seed"),
    ],
)
def test_file_of_another_study(tmp_path, arguments, named):
    path = tmp_path / "rows.csv"
    quiet(echo, {"n": [1, 2, 3]}, path=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"path: .*rows.csv is of another study, .*'{named}'"):
        quiet(**arguments, path=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"no newline", b"text\n", b"[1]\n", b"3\n", b'{"a": 1}', b"\xff\xfe\n", b"\0" * 9]
)
def test_foreign_file_is_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="path: .*notes.txt"):
        quiet(echo, {"n": [1]}, path=path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "line",
    ["garbage", "1", "1,0,1,1,", "2,0,{seed},1,", "1,0,{seed},1", "1,0,{seed},one,", "1,0,x,1,"],
)
def test_damaged_line(tmp_path, line):
    path = tmp_path / "rows.csv"
    (row, _) = quiet(echo, {"n": [1, 2]}, path=path)
    lines = path.read_text().splitlines()
    damaged = "\n".join([*lines[:2], line.format(seed=row["seed"]), *lines[3:], ""])
    path.write_text(damaged)
    with pytest.raises(ValueError, match="path: .*rows.csv is damaged"):
        quiet(echo, {"n": [1, 2]}, path=path)
    assert path.read_text() == damaged


def test_no_folder_for_the_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        quiet(echo, {"n": [1]}, path=tmp_path / "none" / "rows.csv")


SLOW = """
import sys, time
import torch
from mbdl_course.evaluate import sweep

GRID = {"n": list(range(12)), "name": ["a", "b"]}

def slow(seed, n, name):
    time.sleep(0.1)
    return {"value": torch.randn(1, generator=torch.Generator().manual_seed(seed))}

if __name__ == "__main__":
    import slow_study
    sweep(slow_study.slow, GRID, path=sys.argv[1], workers=int(sys.argv[2]), progress=False)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_resumed(tmp_path, monkeypatch, workers):
    (tmp_path / "slow_study.py").write_text(SLOW)
    path = tmp_path / "rows.csv"
    folders = [str(tmp_path), str(Path(__file__).parents[1])]
    process = subprocess.Popen(
        [sys.executable, tmp_path / "slow_study.py", path, str(workers)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
    )
    try:
        deadline = time.monotonic() + 60
        while not (path.exists() and path.read_bytes().count(b"\n") > 5):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    assert 5 < path.read_bytes().count(b"\n") < 26
    with open(path, "ab") as file:
        file.write(b"11,a,0,54")  # as if killed within the write
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    import slow_study

    assert quiet(slow_study.slow, slow_study.GRID, path=path) == quiet(
        slow_study.slow, slow_study.GRID
    )
    monkeypatch.undo()
    sys.modules.pop("slow_study")
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive and len(gone) >= (2 if workers == 2 else 0)


def test_results_come_one_by_one_and_may_be_left(tmp_path, two):
    path = tmp_path / "rows.csv"
    bad = results(echo, {"n": []}, path=path, progress=False)  # nothing happens yet
    with pytest.raises(ValueError, match="distinct"):
        next(bad)
    for client in (None, two):
        path.unlink(missing_ok=True)
        rows = results(echo, {"n": [3, 1, 2]}, client=client, path=path, progress=False)
        first = next(rows)
        rows.close()
        (stored, *others) = results(echo, {"n": [3, 1, 2]}, path=path, progress=False)
        assert stored == first and sorted(row["n"] for row in (first, *others)) == [1, 2, 3]


def test_the_same_study_again_and_again_on_one_client(two):
    """Dask takes equal calls for one: those of a study that was left would take the next along."""
    grid = {"n": list(range(20))}
    wanted = quiet(echo, grid)
    for _ in range(5):
        left = results(echo, grid, client=two, progress=False)
        next(left)
        left.close()
        assert quiet(echo, grid, client=two) == wanted
    both = [results(echo, grid, client=two, progress=False) for _ in range(2)]
    assert {next(rows)["n"] for rows in both} <= {*grid["n"]}
    both[0].close()
    assert len(list(both[1])) == 19


def test_each_point_once_before_any_point_twice():
    rows = results(echo, {"n": [1, 2]}, 3, progress=False)
    assert [row["n"] for row in rows] == [1, 2, 1, 2, 1, 2]


def test_ten_is_ten_in_a_file_too(tmp_path):
    path = tmp_path / "rows.csv"
    rows = quiet(echo, {"n": [10, 20]}, fixed=None, path=path)
    assert quiet(echo, {"n": [10.0, 20]}, path=path) == rows

    def study(seed, n, sizes):
        return {"value": sum(sizes)}

    fixed = {"sizes": (1, 2)}
    (row,) = quiet(study, {"n": [1]}, fixed=fixed, path=tmp_path / "other.csv")
    assert quiet(study, {"n": [1]}, fixed=fixed, path=tmp_path / "other.csv") == [row]
    with pytest.raises(TypeError, match="fixed: .*expected numbers and texts"):
        quiet(study, {"n": [1]}, fixed={"sizes": torch.device("cpu")})


def test_a_study_that_leaves_the_process_is_recorded():
    def leaving(seed, n):
        sys.exit(3)

    (row,) = quiet(leaving, {"n": [1]})
    assert row["error"] == "SystemExit: 3"


def test_fixed_arguments_do_not_enter_the_seed(tmp_path):
    def study(seed, n, device, steps=1):
        return {"value": n * steps, "length": len(device)}

    path = tmp_path / "rows.csv"
    (one,) = quiet(study, {"n": [2]}, fixed={"device": "cpu"}, path=path)
    (two,) = quiet(study, {"n": [2]}, fixed={"device": "cuda", "steps": 3})
    assert one["seed"] == two["seed"] and (one["value"], two["value"]) == (2, 6)
    with pytest.raises(ValueError, match="of another study, with {'fixed'"):
        quiet(study, {"n": [2]}, fixed={"device": "cuda"}, path=path)
    with pytest.raises(ValueError, match="fixed has the name 'n'"):
        quiet(study, {"n": [2]}, fixed={"n": 3})
    with pytest.raises(TypeError, match=r"study does not take seed and \['n', 'colour'\]"):
        quiet(study, {"n": [2]}, fixed={"colour": 3})


def test_interrupted_in_process(tmp_path):
    calls = []

    def interrupted(seed, n):
        calls.append(n)
        if calls == [1, 2]:
            raise KeyboardInterrupt
        return {"n_seen": n}

    with pytest.raises(KeyboardInterrupt):
        quiet(interrupted, {"n": [1, 2, 3]}, path=tmp_path / "rows.csv")
    rows = quiet(interrupted, {"n": [1, 2, 3]}, path=tmp_path / "rows.csv")
    assert [row["n_seen"] for row in rows] == [1, 2, 3] and calls == [1, 2, 2, 3]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("per_task", [1, 2])
def test_a_point_that_kills_its_worker_is_recorded(tmp_path, per_task):
    """And only that one: its neighbours on the worker are asked again, and the cluster lives."""
    path = tmp_path / "rows.csv"
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), cluster(2) as client:
        rows = quiet(dying, {"n": list(range(8))}, client=client, per_task=per_task, path=path)
        assert len(quiet(echo, {"n": list(range(8))}, client=client)) == 8
    assert [row.get("n_seen") for row in rows] == [0, 1, None, 3, 4, 5, 6, 7]
    assert rows[2]["error"].startswith("KilledWorker: ")
    assert "KilledWorker" in path.read_text()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_worker_killed_from_outside_costs_nothing(tmp_path):
    def slow(seed, n):
        time.sleep(0.2)
        return {"n_seen": n, "worker": os.getpid()}

    victims = []

    def kill_one(rows_file):
        while rows_file.read_bytes().count(b"\n") < 4:
            time.sleep(0.02)
        (first, *_) = client.run(os.getpid).values()
        victims.append(first)
        os.kill(first, signal.SIGKILL)

    path = tmp_path / "rows.csv"
    with cluster(2) as client, ThreadPoolExecutor(1) as beside:
        path.touch()
        killed = beside.submit(kill_one, path)
        rows = quiet(slow, {"n": list(range(24))}, client=client, path=path)
        killed.result()
    assert [row["n_seen"] for row in rows] == list(range(24))
    assert len({row["worker"] for row in rows} - set(victims)) >= 1


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
from mbdl_course.evaluate import sweep
sweep(__import__("study_of_words").study, {"n": list(range(40))}, path=sys.argv[1], progress=False)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size on this system")
@pytest.mark.parametrize("limit", [10, 901, 1399])
def test_full_disk(tmp_path, limit, monkeypatch):
    """Each write past so many bytes fails, inside a row too; then there is room again."""
    (tmp_path / "study_of_words.py").write_text(
        "def study(seed, n):\n    return {'value': seed / 7}\n"
    )
    path, folders = tmp_path / "rows.csv", [str(tmp_path), str(Path(__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    command = [sys.executable, "-c", FULL, path, str(limit)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 1 and "OSError" in run.stderr
    assert not path.exists() or path.stat().st_size <= limit
    monkeypatch.syspath_prepend(tmp_path)
    import study_of_words

    grid, whole = {"n": list(range(40))}, tmp_path / "whole.csv"
    assert quiet(study_of_words.study, grid, path=path) == quiet(
        study_of_words.study, grid, path=whole
    )
    assert path.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".rows*"))
    sys.modules.pop("study_of_words")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (3.0, "AttributeError"),
        ({"value": "text"}, "TypeError: study returned .*expected numbers"),
        ({"value": None}, "expected numbers"),
        ({"value": 1j}, "expected numbers"),
        ({"two\nlines": 1}, "TypeError: study returned the names .*expected texts of one line"),
        ({1: 2.0}, "TypeError: study returned the names"),
        ({"value": torch.ones(2)}, "RuntimeError"),
        ({"n": 3}, "ValueError: study returned {'n'}"),
        ({"error": 3}, "ValueError: study returned {'error'}"),
    ],
)
def test_bad_returns_are_recorded(returned, message):
    def study(seed, n):
        return returned

    (row,) = quiet(study, {"n": [1]})
    assert row.keys() == {"n", "repetition", "seed", "error"}
    assert re.search(message, row["error"])


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"study": 3}, TypeError, "study is 3"),
        ({"study": functools.partial(echo, n=1), "grid": {}}, TypeError, "fixed values into the"),
        ({"grid": [("n", [1])]}, TypeError, "grid is list"),
        ({"grid": {"n": 3}}, TypeError, r"grid\['n'\] is 3"),
        ({"grid": {"n": "123"}}, TypeError, r"grid\['n'\] is '123'"),
        ({"grid": {"n": []}}, ValueError, r"grid\['n'\] is \[\]"),
        ({"grid": {"n": [1, 1.0]}}, ValueError, "distinct"),
        ({"grid": {"n": [1, math.nan]}}, ValueError, "no NaN"),
        ({"grid": {"n": [None]}}, TypeError, "expected numbers or strings"),
        ({"grid": {"n": [[1]]}}, TypeError, "expected numbers or strings"),
        ({"grid": {"seed": [1]}}, ValueError, "the name 'seed'"),
        ({"grid": {"error": [1]}}, ValueError, "the name 'error'"),
        ({"grid": {"m": [1]}}, TypeError, r"study does not take seed and \['m'\]"),
        ({"repetitions": 0}, ValueError, "repetitions is 0"),
        ({"repetitions": 1.5}, ValueError, "repetitions is 1.5"),
        ({"workers": 0}, ValueError, "workers is 0"),
        ({"workers": True}, ValueError, "workers is True"),
        ({"seed": 0.5}, TypeError, "seed is 0.5"),
        ({"workers": 2, "client": object()}, ValueError, "client was given beside"),
        ({"per_task": 0}, ValueError, "per_task is 0"),
        ({"grid": {"n": ["two\nlines"]}}, ValueError, "text of one line"),
    ],
)
def test_sweep_bad_input(tmp_path, changes, kind, message):
    path = tmp_path / "rows.csv"
    with pytest.raises(kind, match=message):
        quiet(**{"study": echo, "grid": {"n": [1]}, "path": path} | changes)
    assert not path.exists()


def test_workers_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"workers need dask.distributed, .*\[scale\]"):
        quiet(echo, {"n": [1]}, workers=2)


def test_a_script_without_its_guard_is_told(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from mbdl_course.evaluate import sweep\n"
        "sweep(lambda seed, n: {'v': n}, {'n': [1]}, workers=2, progress=False)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert run.returncode == 1 and 'if __name__ == "__main__"' in run.stderr.splitlines()[-1]


def test_summary(rows):
    lines = summary(rows, by=["snr_db", "method"])
    assert [(line["snr_db"], line["method"]) for line in lines] == [
        (snr, method) for snr in GRID["snr_db"] for method in GRID["method"]
    ]
    values = [row["nmse_db"] for row in rows if row["snr_db"] == 10.5 and row["method"] == "ista"]
    expected = {"mean": sum(values) / 2, "standard_error": abs(values[0] - values[1]) / 2}
    assert lines[2].keys() == {"snr_db", "method", "mean", "standard_error", "count", "failed"}
    assert all(math.isclose(lines[2][name], value) for name, value in expected.items())
    assert (lines[2]["count"], lines[2]["failed"]) == (2, 0)
    assert (lines[1]["count"], lines[1]["failed"]) == (0, 2) and math.isnan(lines[1]["mean"])
    (whole,) = summary(rows, by=[], of="count")
    assert (whole["mean"], whole["count"], whole["failed"]) == (999, 10, 2)


def test_summary_bad_input(rows):
    with pytest.raises(ValueError, match="rows have no ser, only snr_db, method"):
        summary(rows, by=["snr_db"], of="ser")
    with pytest.raises(ValueError, match="rows have no depth"):
        summary(rows, by=["depth"])
