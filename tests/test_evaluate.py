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

import numpy as np
import psutil
import pytest
import torch

from mbdl_course import evaluate
from mbdl_course.evaluate import (
    mse,
    nmse_db,
    nmse_db_per_sample,
    psnr_db,
    snr_db,
    standard_error,
    summary,
    support_f1,
    sweep,
)

# Metrics


@pytest.fixture(params=[torch.float32, torch.float64, torch.complex128], ids=str)
def pair(request):
    generator = torch.Generator().manual_seed(1)
    s = torch.randn(3, 4, 7, 1, generator=generator, dtype=torch.float64).to(request.param)
    w = torch.randn(3, 4, 7, 1, generator=generator, dtype=torch.float64).to(request.param)
    return s + 0.1 * w * (1j if s.is_complex() else 1), s


def test_metrics_by_hand():
    s = torch.tensor([[[3.0], [4.0]], [[0.0], [1.0]]])  # energies 25 and 1
    s_hat = torch.tensor([[[3.0], [3.5]], [[0.1], [1.0]]])  # errors 0.25 and 0.01: -20 dB each
    assert torch.allclose(snr_db(s_hat, s), torch.tensor([20.0, 20.0]))
    assert math.isclose(nmse_db_per_sample(s_hat, s), -20, abs_tol=1e-4)
    assert math.isclose(nmse_db(s_hat, s), 10 * math.log10(0.26 / 26), abs_tol=1e-4)
    assert math.isclose(mse(s_hat, s), 0.26 / 4, rel_tol=1e-5)


def test_definitions_agree(pair):
    s_hat, s = pair
    nmse = ((s_hat - s).abs() ** 2).sum((-2, -1)) / (s.abs() ** 2).sum((-2, -1))
    torch.testing.assert_close(snr_db(s_hat, s), -10 * nmse.log10())
    torch.testing.assert_close(nmse_db_per_sample(s_hat, s), 10 * nmse.log10().mean())
    torch.testing.assert_close(nmse_db(s_hat[1, 2], s[1, 2]), -snr_db(s_hat, s)[1, 2])
    torch.testing.assert_close(mse(s_hat, s), ((s_hat - s).abs() ** 2).mean())
    assert snr_db(s_hat, s).shape == (3, 4) and support_f1(s_hat, s, 0.5).shape == (3, 4)


def test_metrics_keep_the_dtype_and_the_inputs(pair):
    before = [v.clone() for v in pair]
    for value in (mse(*pair), nmse_db(*pair), snr_db(*pair), support_f1(*pair, 0.5)):
        assert value.dtype == pair[1].real.dtype
    assert all(torch.equal(a, b) for a, b in zip(pair, before, strict=True))


def test_the_two_nmse_differ_either_way():
    ratios = torch.tensor([0.5, 0.001, 0.02], dtype=torch.float64)

    def both(energies):
        s = energies.sqrt().reshape(-1, 1, 1)
        s_hat = s + (ratios * energies).sqrt().reshape(-1, 1, 1)
        return nmse_db(s_hat, s), nmse_db_per_sample(s_hat, s)

    ratio_of_sums, mean_of_db = both(torch.ones(3, dtype=torch.float64))
    assert mean_of_db < ratio_of_sums  # Jensen: one energy
    torch.testing.assert_close(ratio_of_sums, 10 * ratios.mean().log10())
    ratio_of_sums, mean_of_db = both(torch.tensor([1.0, 100.0, 1.0], dtype=torch.float64))
    assert mean_of_db > ratio_of_sums  # the strong signal is the well recovered one


def test_exact_recovery():
    s = torch.ones(2, 3, 1)
    assert nmse_db(s, s) == nmse_db_per_sample(s, s) == -math.inf
    assert (snr_db(s, s) == math.inf).all() and mse(s, s) == 0
    assert psnr_db(s, s, peak=1) == math.inf


def test_metrics_scale_out():
    generator = torch.Generator().manual_seed(0)
    s, s_hat = torch.randn(2, 5, 9, 1, generator=generator, dtype=torch.float64)
    for metric in (nmse_db, nmse_db_per_sample, snr_db):
        torch.testing.assert_close(metric(1e3 * s_hat, 1e3 * s), metric(s_hat, s))


def test_nmse_has_a_gradient():
    s = torch.ones(2, 3, 1, dtype=torch.float64)
    s_hat = torch.full_like(s, 0.7).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: nmse_db(v, s), s_hat)


def test_psnr():
    image = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    image_hat = image + torch.tensor([0.1, 0.01], dtype=torch.float64).reshape(2, 1, 1, 1)
    expected = torch.tensor([20.0, 40.0], dtype=torch.float64)
    torch.testing.assert_close(psnr_db(image_hat, image, peak=1), expected)
    torch.testing.assert_close(psnr_db(255 * image_hat, 255 * image, peak=255), expected)
    torch.testing.assert_close(psnr_db(image_hat[0, 0], image[0, 0], peak=1), expected[0])


def test_support_f1():
    s = torch.tensor([[0.0, 1, 0, -2], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)[..., None]
    s_hat = torch.tensor([[0.05, 3, 1, 0], [0, 0.09, 0, 0], [1, 1, 1, 0]])[..., None].to(s)
    f1 = support_f1(s_hat, s, tolerance=0.1)
    torch.testing.assert_close(f1, torch.tensor([2 / 4, 1, 6 / 7], dtype=torch.float64))
    assert support_f1(s_hat, s, tolerance=0.0)[1] == 0
    sklearn = pytest.importorskip("sklearn.metrics")
    oracle = sklearn.f1_score(s[0, :, 0].abs() > 0.1, s_hat[0, :, 0].abs() > 0.1)
    assert math.isclose(f1[0], oracle)


def test_standard_error():
    assert math.isclose(standard_error([1, 2, 3, 4]), math.sqrt(5 / 3 / 4))
    assert standard_error(torch.full((5,), 2.0)) == 0
    assert math.isnan(standard_error([1.0]))
    for bad in ([], [[1.0, 2.0]], 3.0):
        with pytest.raises(ValueError, match="values have shape"):
            standard_error(bad)


COLUMN_METRICS = [
    nmse_db,
    nmse_db_per_sample,
    snr_db,
    functools.partial(support_f1, tolerance=0.1),
]
good = torch.ones(2, 3, 1)


@pytest.mark.parametrize("metric", [mse, *COLUMN_METRICS])
@pytest.mark.parametrize(
    ("s_hat", "s", "kind", "message"),
    [
        ([1.0], good, TypeError, "s_hat is list"),
        (good, good.numpy(), TypeError, "s is ndarray"),
        (good.int(), good.int(), ValueError, "s_hat is torch.int32"),
        (good, good.bool(), ValueError, "s is torch.bool"),
        (good[:, :2], good, ValueError, "s_hat has shape .*expected that of s"),
        (good[:1], good, ValueError, "s_hat has shape"),  # would broadcast
        (good.double(), good, ValueError, "s_hat has dtype torch.float64, expected that of s"),
        (good.to("meta"), good, ValueError, "s_hat has device meta, expected that of s: cpu"),
        (good[:0], good[:0], ValueError, "s_hat is .*not empty"),
        (good * math.nan, good, ValueError, "s_hat has 6 NaN or infinite"),
        (good, good / torch.tensor([1.0, 0, 1])[:, None], ValueError, "s has 2 NaN or infinite"),
    ],
)
def test_metrics_bad_input(metric, s_hat, s, kind, message):
    with pytest.raises(kind, match=message):
        metric(s_hat, s)


@pytest.mark.parametrize("metric", COLUMN_METRICS)
@pytest.mark.parametrize("shape", [(5,), (5, 2), (3, 1, 2)])
def test_signals_are_columns(metric, shape):
    with pytest.raises(ValueError, match=r"s has shape .* expected columns \(..., m, 1\)"):
        metric(torch.ones(shape), torch.ones(shape))


def test_zero_reference():
    s = good.clone()
    s[0] = 0
    assert nmse_db(good, s) == 0  # the batch has energy, though one signal has none
    with pytest.raises(ValueError, match="s is all zero"):
        nmse_db(good, 0 * good)
    for metric in (snr_db, nmse_db_per_sample):
        with pytest.raises(ValueError, match="s has 1 all-zero signals"):
            metric(good, s)


@pytest.mark.parametrize("peak", [0, -1, math.nan, math.inf])
def test_bad_peak(peak):
    with pytest.raises(ValueError, match="peak is"):
        psnr_db(good, good, peak)


def test_bad_images_and_tolerance():
    with pytest.raises(ValueError, match="image_hat has shape"):
        psnr_db(good[:1], good, 1)
    with pytest.raises(ValueError, match="image has shape"):
        psnr_db(good[0, :, 0], good[0, :, 0], 1)
    for tolerance in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="tolerance is"):
            support_f1(good, good, tolerance)


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
    assert seeds[0, "ista", 0] == evaluate._seed(0, {"snr_db": 0.0, "method": "ista"}, 0)
    assert seeds[0, "ista", 0] == 2015628179803849296


def test_two_workers_give_the_same_rows(rows, tmp_path):
    assert quiet(noisy, GRID, repetitions=2, workers=2, path=tmp_path / "rows.jsonl") == rows
    assert quiet(noisy, GRID, repetitions=2, path=tmp_path / "rows.jsonl") == rows


def test_any_executor(rows):
    class Client:  # no more than the contract
        def submit(self, function, *arguments):
            future = Future()
            future.set_result(function(*arguments))
            return Bare(future)

    class Bare:
        def __init__(self, future):
            self.result = future.result
            self.add_done_callback = lambda call: future.add_done_callback(lambda _: call(self))

    assert quiet(noisy, GRID, repetitions=2, executor=Client()) == rows
    with ThreadPoolExecutor(2) as executor:
        assert quiet(noisy, GRID, repetitions=2, executor=executor) == rows
        assert executor.submit(int).result() == 0  # it is the caller's to shut down


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


def test_file_resumes_at_every_cut(rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    assert quiet(noisy, GRID, repetitions=2, path=path) == rows
    whole = path.read_bytes()
    assert whole.count(b"\n") == 1 + len(rows)
    for cut in sorted({0, 1, *range(0, len(whole), 37), len(whole) - 1}):
        path.write_bytes(whole[:cut])
        assert quiet(noisy, GRID, repetitions=2, path=path) == rows
        for line in path.read_bytes().splitlines():
            json.loads(line)


def test_only_what_is_missing_or_failed_runs(tmp_path, monkeypatch):
    path, calls = tmp_path / "rows.jsonl", []

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
    path = tmp_path / "rows.jsonl"
    quiet(echo, {"n": [1, 2, 3]}, path=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"path: .*rows.jsonl is of another study, .*'{named}'"):
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
    "line", [b"garbage", b"{}", b"[]", b'{"seed": 1, "n": 1}', b'{"seed": []}']
)
def test_damaged_line(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    quiet(echo, {"n": [1, 2]}, path=path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], line, *lines[2:], b""]))
    with pytest.raises(ValueError, match="path: .*rows.jsonl"):
        quiet(echo, {"n": [1, 2]}, path=path)


def test_no_folder_for_the_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        quiet(echo, {"n": [1]}, path=tmp_path / "none" / "rows.jsonl")


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
    path = tmp_path / "rows.jsonl"
    folders = [str(tmp_path), str(Path(__file__).parents[1])]
    process = subprocess.Popen(
        [sys.executable, tmp_path / "slow_study.py", path, str(workers)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(folders)},
    )
    try:
        deadline = time.monotonic() + 60
        while not (path.exists() and path.read_bytes().count(b"\n") > 4):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    assert 4 < path.read_bytes().count(b"\n") < 25
    with open(path, "ab") as file:
        file.write(b'{"n": 11, "na')  # as if killed within the write
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


def test_interrupted_in_process(tmp_path):
    calls = []

    def interrupted(seed, n):
        calls.append(n)
        if calls == [1, 2]:
            raise KeyboardInterrupt
        return {"n_seen": n}

    with pytest.raises(KeyboardInterrupt):
        quiet(interrupted, {"n": [1, 2, 3]}, path=tmp_path / "rows.jsonl")
    rows = quiet(interrupted, {"n": [1, 2, 3]}, path=tmp_path / "rows.jsonl")
    assert [row["n_seen"] for row in rows] == [1, 2, 3] and calls == [1, 2, 2, 3]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_dead_worker_is_told_and_keeps_the_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(RuntimeError, match="terminated abruptly"):
        quiet(dying, {"n": [0, 1, 2, 3]}, workers=2, path=path)
    json.loads(path.read_bytes().splitlines()[0])
    assert not [c for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (3.0, "AttributeError"),
        ({"value": "text"}, "TypeError: study returned .*expected numbers"),
        ({"value": None}, "expected numbers"),
        ({"value": 1j}, "expected numbers"),
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
        ({"workers": 2, "executor": object()}, ValueError, "executor was given beside"),
        ({"workers": 2, "study": lambda seed, n: {}}, ValueError, "study cannot be imported"),
    ],
)
def test_sweep_bad_input(tmp_path, changes, kind, message):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(kind, match=message):
        quiet(**{"study": echo, "grid": {"n": [1]}, "path": path} | changes)
    assert not path.exists()


def test_study_of_a_notebook_cell_does_not_go_to_workers(monkeypatch):
    monkeypatch.setattr(echo, "__module__", "__main__")
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(ValueError, match="study cannot be imported"):
        quiet(echo, {"n": [1]}, workers=2)


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


def test_mean_and_error_are_numpys():
    rows = np.random.default_rng(0).normal(size=(3, 7))
    mean, error = evaluate.mean_and_error(rows)
    np.testing.assert_allclose(mean, rows.mean(-1))
    np.testing.assert_allclose(error, rows.std(-1, ddof=1) / 7**0.5)
