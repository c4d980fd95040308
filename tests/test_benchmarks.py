"""The benchmarks: the gate does what it says, and each pair gives equal answers at a tiny size."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import run
import timing
from timing import Pair, Rounds

PAIRS = [pair for pair in run.pairs() if pair.module != "playwright"]  # tests/browser drive that
RECORD = {"ratio": 10.0, "versions": timing.versions("torch")}


def rounds(factor):
    """Three rounds in which ours is `factor` times faster."""
    return Rounds([1.0, 2.0, 1.0], [factor, 2 * factor, factor], 0.0, 0.0)


def pair(name="sparse/one", module="torch"):
    return Pair(name, "a peer", lambda tiny: rounds(10.0), module)


def busy(seconds):
    """Compute for so long."""
    end = timing.time.process_time() + seconds
    while timing.time.process_time() < end:
        pass
    return 1.0


# ---- Timing ----


def test_alternating_alternates():
    """The answers first, then in turn, the second of a round first in the next."""
    calls, slow = [], 0.03

    def call(letter):
        calls.append(letter)
        return busy(slow)

    found = timing.alternating(
        lambda: call("a"), lambda: call("b"), lambda a, b: abs(a - b), 0.0, work=100.0, rounds=4
    )
    assert "".join(calls) == "ab" + "abbaabba"
    assert len(found.ours) == len(found.theirs) == 4
    assert min(found.ours) >= slow and min(found.theirs) >= 100 * slow  # `work` counts


def test_short_calls_are_made_more_often():
    calls = []
    timing.alternating(lambda: calls.append(1), lambda: None, lambda a, b: 0, 0, rounds=1)
    assert len(calls) == 1 + 50
    assert timing.repeats(0.5) == 1


def test_no_round_is_begun_that_does_not_fit():
    found = timing.alternating(
        lambda: busy(0.03), lambda: None, lambda a, b: 0, 0, rounds=9, budget=0.0
    )
    assert len(found.ours) == 3


def test_other_answers_are_not_timed():
    calls = []
    with pytest.raises(AssertionError, match="2 apart, expected at most 1"):
        timing.alternating(lambda: calls.append(1), lambda: None, lambda a, b: 2.0, 1.0)
    assert len(calls) == 1
    with pytest.raises(AssertionError, match="nan apart"):
        timing.alternating(lambda: 1, lambda: 1, lambda a, b: float("nan"), 1.0)


def test_the_ratio_is_the_median_of_the_rounds():
    found = timing.ratio(Rounds([1.0, 1.0, 2.0, 1.0, 1.0], [1.0, 2.0, 6.0, 4.0, 5.0], 0.0, 0.0))
    assert found == (3.0, 2.0, 4.0)


# ---- The gate ----


@pytest.mark.parametrize(("new", "word"), [(6.9, "LOST"), (7.1, "ok"), (10.0, "ok"), (100.0, "ok")])
def test_the_gate_fails_on_a_loss_of_31_percent_and_passes_on_29(new, word):
    assert run.compared(pair(), RECORD, lambda pair: rounds(new))[0] == word


def test_a_loss_is_measured_once_more():
    answers = [6.0, 9.0]
    word, _, record = run.compared(pair(), RECORD, lambda pair: rounds(answers.pop(0)))
    assert (word, record["ratio"], answers) == ("ok", 9.0, [])
    answers = [6.0, 5.0]
    word, _, record = run.compared(pair(), RECORD, lambda pair: rounds(answers.pop(0)))
    assert (word, record["ratio"], answers) == ("LOST", 6.0, [])


def test_a_pair_that_is_not_stored_is_new():
    assert run.compared(pair(), None, lambda pair: rounds(1.0))[0] == "NEW"


def test_a_peer_that_is_not_installed_is_skipped_and_told():
    word, note, record = run.compared(pair(module="no_such_peer"), RECORD)
    assert (word, note, record) == ("SKIPPED", "not installed: pip install no_such_peer", None)

    def broken(pair):
        raise ImportError("not installed: chromium")

    assert run.compared(pair(), RECORD, broken) == ("SKIPPED", "not installed: chromium", None)


def test_other_versions_are_told():
    before = RECORD | {"versions": {"torch": "1.0"}}
    _, note, _ = run.compared(pair(), before, lambda pair: rounds(10.0))
    assert "1.0" in note


def wrong(tiny):
    return timing.Job(lambda: 1.0, lambda: 2.0, lambda a, b: abs(a - b), 0.5)


@pytest.mark.parametrize(
    ("chosen", "code", "said"),
    [
        ([pair()], 0, "1 pairs: 1 ok."),
        ([pair(), pair("sparse/new")], 0, "2 pairs: 1 ok, 1 without a stored ratio."),
        ([pair(), pair("sparse/two", "no_such")], 0, "2 pairs: 1 ok, 1 skipped, not known."),
        ([pair("sparse/two", "no_such")], 1, "1 pairs: 1 skipped, not known."),
        ([pair(), Pair("sparse/bad", "a peer", wrong)], 1, "1 ok, 1 failed."),
        ([pair()._replace(prepare=lambda tiny: rounds(6.0))], 1, "1 lost more than 30 %."),
    ],
)
def test_the_run_ends_with_what_it_knows(monkeypatch, capsys, chosen, code, said):
    monkeypatch.setattr(run, "pairs", lambda names: chosen)
    monkeypatch.setattr(run, "stored", lambda: {"sparse/one": RECORD, "sparse/gone": RECORD})
    monkeypatch.setattr(run, "threadpool_limits", lambda count: None)
    with pytest.raises(SystemExit) as end:
        run.main([])
    out = capsys.readouterr().out
    assert end.value.code == code and said in out
    assert "sparse/gone: stored, but no pair has this name" in out


def test_what_is_stored_is_read_again_and_the_rest_stays(tmp_path):
    first = {"sparse/one": timing.record(pair(), rounds(10.0))}
    second = {"sparse/two": timing.record(pair(), rounds(20.0)), "doa/x": RECORD}
    run.store(first, tmp_path)
    run.store(second, tmp_path)
    assert run.stored(tmp_path) == first | second
    assert json.loads((tmp_path / "sparse.json").read_text())["machine"]["threads"] == 1


def test_an_unknown_name_is_told(capsys):
    with pytest.raises(SystemExit) as end:
        run.main(["sparse/no-such"])
    assert end.value.code == 2
    assert "got 'sparse/no-such', expected beginnings of sparse" in capsys.readouterr().err
    assert {p.name.split("/")[0] for p in run.pairs(["sparse/ista", "doa"])} == {"sparse", "doa"}


# ---- The pairs ----


def test_names_are_unique():
    names = [pair.name for pair in run.pairs()]
    assert len(names) == len(set(names)) and not any(" " in name for name in names)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_answers_are_equal(pair):
    if note := timing.missing(pair.module):
        pytest.skip(note)
    assert len(timing.measured(pair, tiny=True, rounds=1).ours) == 1
