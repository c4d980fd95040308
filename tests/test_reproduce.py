"""Published figures computed again: each entry at a tiny size, the command, what is stored."""

import csv
import hashlib
import json
import math

import pytest
import torch

from mbdl_course import datasets, reproduce, show
from mbdl_course.__main__ import main
from mbdl_course.evaluate import cluster
from mbdl_course.reproduce import ENTRIES, Entry, Scale, compared, run, told

TINY = {  # entry: (sizes, point) with which its study takes a second or so
    "lasso": ({}, {}),
    "kalmannet_lorenz": ({"train": False, "n_test": 10}, {"horizon": 5}),
    "kalmannet_linear": ({"steps": [1, 1, 1], "n_train": 20, "n_test": 10}, {"turned": 10}),
    "augmentation": (
        {"length": 10, "n_test": 40, "steps": 1},
        {"world": "Lorenz, J = 2", "n_train": 20},
    ),
    "filters": ({"n_test": 10, "horizon": 5}, {"setting": "canonical"}),
    "nile": ({}, {"before": "nothing known"}),
    "unrolled": ({"n": 50, "steps": 1, "n_test": 20}, {"noise": "SNR 20 dB"}),
    "unfolded_admm": ({"n_train": 20, "steps": 2, "n_test": 10}, {"layers": 6}),
    "corona": ({"n_train": 8, "steps": 1, "n_test": 4, "size": 8, "frames": 6}, {"layers": 2}),
    "viterbinet": (
        {"channel": "Gaussian", "gammas": [0.5], "n_train": 500, "steps": 3, "batch": 50,
         "box_steps": 2, "n_test": 500}, {"snr_db": 6.0, "pilots": "CSI error"},
    ),
    "viterbinet_poisson": (
        {"channel": "Poisson", "gammas": [0.5], "n_train": 500, "steps": 3, "batch": 50,
         "box_steps": 0, "n_test": 500}, {"snr_db": 26.0, "pilots": "clean"},
    ),
    "deepsic": (
        {"n_train": 500, "widths": [8, 4], "steps": 2, "batch": 50, "n_test": 500},
        {"snr_db": 8.0, "pilots": "ten wrong H"},
    ),
    "detnet": ({"depth": 2, "steps": 2, "batch": 10, "n_test": 1000}, {"snr_db": 10, "users": 10}),
    "weighted_bp": ({"steps": 2, "lr": 0.02, "batch": 20, "n_test": 250}, {"ebn0_db": 5.0}),
    "subspacenet": (
        {"n_train": 200, "steps": {"SubspaceNet": 2, "SubspaceNet, convolutions": 1},
         "batch": 16, "n_test": 50}, {"snr_db": 10},
    ),
}  # fmt: skip


def echo(seed, device, snr_db, kind, scale=1.0):
    if snr_db == 20 and kind == "bad":
        raise ArithmeticError("diverges")
    return {"ours": snr_db * scale, "other": 2.0 + seed % 2}


ECHO = Entry(
    "A figure", "Somebody 2000, Fig. 1", echo,
    Scale({"snr_db": [0, 10, 20], "kind": ["good", "bad"]}, 2, "small"),
    Scale({"snr_db": [0, 10], "kind": ["good"]}, 3, "as published", {"scale": 2.0}),
    lambda snr_db, kind: {"ours": -1.0, "theirs": 5.0} if snr_db == 10 else {},
    {"ours": "model-based", "other": "learned", "theirs": "black box"}, "dB",
)  # fmt: skip


def test_every_entry_has_a_tiny_size():
    assert TINY.keys() == ENTRIES.keys()


@pytest.mark.parametrize("name", ENTRIES)
def test_studies_are_pure_and_fit_their_entry(name):
    entry, (sizes, point) = ENTRIES[name], TINY[name]
    for scale in (entry.quick, entry.paper):
        assert point.keys() == scale.grid.keys() and sizes.keys() >= scale.sizes.keys()
        assert scale.note and scale.repetitions >= 1
    assert entry.paper.repetitions >= 5
    first, again = (entry.study(seed=2**63 - 1, device="cpu", **sizes, **point) for _ in range(2))
    assert first.keys() <= entry.styles.keys()
    assert all(float(value) == float(again[key]) for key, value in first.items())
    assert all(math.isfinite(value) for value in first.values())
    assert set(entry.styles.values()) <= show.STYLES.keys()


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("scale", ["quick", "paper"])
def test_what_is_published_is_comparable(name, scale):
    entry, grid = ENTRIES[name], getattr(ENTRIES[name], scale).grid
    blank = [{**dict(zip(grid, point, strict=True)), "error": "not run"} for point in points(grid)]
    lines = compared(entry, blank, grid)
    assert len(lines) >= len(blank)
    assert all(isinstance(line["published"], (int, float, type(None))) for line in lines)


def points(grid):
    return [[]] if not grid else [
        [value, *rest]
        for (_, values), *_ in [list(grid.items())]
        for value in values
        for rest in points(dict(list(grid.items())[1:]))
    ]  # fmt: skip


def test_lines_put_ours_beside_the_papers():
    rows = [{"snr_db": 10, "kind": "good", "ours": value, "other": 1.0} for value in (1.0, 3.0)]
    lines = compared(ECHO, rows, ECHO.quick.grid)
    assert [line["method"] for line in lines] == ["ours", "other", "theirs"]
    assert (lines[0]["ours"], lines[0]["standard_error"], lines[0]["published"]) == (2, 1, -1)
    assert lines[1]["published"] is None
    assert (lines[2]["ours"], lines[2]["count"], lines[2]["published"]) == (None, 0, 5)
    wrong = ECHO._replace(published=lambda **point: {"nobody": 1.0})
    with pytest.raises(ValueError, match="published names {'nobody'}"):
        compared(wrong, rows, ECHO.quick.grid)


def test_a_run_leaves_table_figure_and_card(tmp_path):
    lines, card = run("echo", ECHO, "quick", tmp_path, progress=False)
    place = tmp_path / "echo-quick"
    assert sorted(p.name for p in place.iterdir()) == [
        "card.json", "figure.png", "rows.csv", "table.csv"]  # fmt: skip
    assert card == json.loads((place / "card.json").read_text())
    assert card["sha256"] == hashlib.sha256((place / "rows.csv").read_bytes()).hexdigest()
    assert (card["failed"], card["threads"], card["workers"]) == (2, 1, 1)
    assert card["versions"]["torch"] == torch.__version__.partition("+")[0]
    table = list(csv.DictReader((place / "table.csv").read_text().splitlines()))
    assert len(table) == len(lines) and table[0]["ours"] == "0.0"
    text = told("echo", ECHO, lines, card)
    assert "Somebody 2000" in text and "small" in text and "2 failed" in text
    row = next(line for line in text.splitlines() if line.startswith("10      good  ours"))
    assert row.split()[3:] == ["10", "±", "0", "(2)", "-1"]
    again, second = run("echo", ECHO, "quick", tmp_path, progress=False)  # only what failed is left
    assert repr(again) == repr(lines) and (card["resumed"], second["resumed"]) == (False, True)
    assert "since it was resumed" in told("echo", ECHO, lines, second)


def test_the_papers_size_tells_its_sizes(tmp_path):
    lines, card = run("echo", ECHO, "paper", tmp_path, progress=False)
    assert card["sizes"] == {"scale": 2.0} and card["note"] == "as published"
    assert [line["ours"] for line in lines if line["method"] == "ours"] == [0, 20]
    with pytest.raises(ValueError, match="scale: got 'huge'"):
        run("echo", ECHO, "huge", tmp_path)


def test_figures_of_all_forms(tmp_path):
    for grid in ({"snr_db": [0, 10], "kind": ["good"]}, {"snr_db": [0], "kind": ["good", "nice"]}):
        entry = ECHO._replace(quick=Scale(grid, 2, "small"), log=False)
        run("echo", entry, "quick", tmp_path / grid["kind"][-1], progress=False)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(reproduce.ENTRIES, "echo", ECHO)
    assert main(["reproduce"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ENTRIES)
    assert main(["reproduce", "echo", "--scale", "paper", "--out", str(tmp_path)]) == 0
    assert "echo (paper): A figure" in capsys.readouterr().out
    assert main(["reproduce", "echo", "--out", str(tmp_path)]) == 1  # two points fail


def test_the_command_joins_a_scheduler(tmp_path, monkeypatch):
    monkeypatch.setitem(reproduce.ENTRIES, "echo", ECHO)
    words = ["reproduce", "echo", "--scale", "paper", "--out"]
    with cluster(2) as client:
        assert main([*words, str(tmp_path / "a"), "--scheduler", client.scheduler.address]) == 0
    assert main([*words, str(tmp_path / "b"), "--workers", "1"]) == 0
    a, b = ((tmp_path / side / "echo-paper/rows.csv").read_bytes() for side in "ab")
    assert a == b
    assert json.loads((tmp_path / "a/echo-paper/card.json").read_text())["workers"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "name: got nothing, expected all or some of"),
        (["lasso", "--device", "tpu"], "device: got 'tpu'"),
        (["lasso", "--workers", "2", "--scheduler", "tcp://x:1"], "scheduler: got 'tcp://x:1'"),
        (["lasso", "--workers", "0"], "workers: got 0"),
    ],
)
def test_bad_words(words, message, capsys):
    assert main(["reproduce", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_told(capsys):
    assert main(["reproduce", "lasso", "--device", "cuda"]) == 2
    assert "torch sees no GPU" in capsys.readouterr().err


# ---- what is stored in data/results ----


def test_the_variances_of_the_nile_are_the_books_from_any_guess():
    entry, (rows, _) = ENTRIES["nile"], datasets.result("nile", "quick")
    lines = compared(entry, rows, entry.quick.grid)
    assert len(rows) == 20 and len(lines) == 4
    for line in lines:  # statsmodels' optimiser stops a little before the top
        near = 1e-4 if line["before"] == "nothing known" else 0.02
        assert line["ours"] == pytest.approx(line["published"], rel=near)
        assert line["standard_error"] < 1e-6 * line["ours"]


@pytest.mark.parametrize(("name", "scale"), datasets.stored_results())
def test_stored_results_are_of_their_card(name, scale):
    rows, card = datasets.result(name, scale)
    size = getattr(ENTRIES[name], scale)
    assert card["grid"] == json.loads(json.dumps(plain(size.grid))), "computed for another grid"
    assert card["sizes"] == size.sizes and card["repetitions"] == size.repetitions
    assert len(rows) == math.prod(map(len, size.grid.values())) * size.repetitions
    assert sum("error" in row for row in rows) == card["failed"] == 0
    assert not card.get("resumed"), "its seconds are of a part: delete the folder, run it whole"
    assert compared(ENTRIES[name], rows, size.grid)


def plain(grid):
    return {name: list(values) for name, values in grid.items()}


def test_a_stored_result_that_was_changed_is_noticed(tmp_path, monkeypatch):
    run("echo", ECHO, "paper", tmp_path / "results", progress=False)
    monkeypatch.setattr(datasets, "data_dir", lambda: tmp_path)
    assert datasets.stored_results() == [("echo", "paper")]
    rows, _ = datasets.result("echo", "paper")
    assert rows[0] == {"snr_db": 0, "kind": "good", "repetition": 0, "seed": rows[0]["seed"],
                       "ours": 0.0, "other": rows[0]["other"]}  # fmt: skip
    file = tmp_path / "results/echo-paper/rows.csv"
    file.write_bytes(file.read_bytes().replace(b"20.0", b"19.0"))
    with pytest.raises(ValueError, match="has the SHA-256"):
        datasets.result("echo", "paper")
    with pytest.raises(FileNotFoundError, match="reproduce nothing"):
        datasets.result("nothing", "quick")
