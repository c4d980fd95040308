"""Ours against a peer on the same problem, in one process, in turn: `make bench`.

    python benchmarks/run.py [NAMES] [--store]

NAMES are beginnings of the names in the table ("sparse", "tracking/filter"); all of them if none.
A ratio is their time over ours: above 1 ours is faster. One that is more than 30 % below the stored
one is measured once more, and is LOST if it is still so; FAILED is one whose answers differ, or
that raises an error; both make the exit code 1. A peer that is not installed is SKIPPED, and
counted: nothing is known of it.
--store writes what was measured to benchmarks/results/<task>.json. One thread each; the seconds are
those that the process computes, so that other programs count less.
"""

import argparse
import json
import os
import platform
import sys
from importlib import import_module
from pathlib import Path

import timing
import torch
from threadpoolctl import threadpool_limits

TASKS = ["sparse", "unrolled", "learning", "lowrank", "tracking", "doa", "mimo", "equalize"]
TASKS += ["latency"]
RESULTS = Path(__file__).resolve().parent / "results"
ROW = "{:44} {:26} {:>9} {:>9} {:>7} {:>15} {:>7}  {}"


def pairs(names=()):
    """The pairs whose names begin with one of `names`; ValueError for one that none begins with."""
    modules = {task: "latency" if task == "latency" else f"{task}_speed" for task in TASKS}
    tasks = [task for task in TASKS if not names or any(n.split("/")[0] in task for n in names)]
    every = [pair for task in tasks for pair in import_module(modules[task]).PAIRS]
    for name in names:
        if not any(pair.name.startswith(name) for pair in every):
            raise ValueError(f"NAMES: got {name!r}, expected beginnings of {', '.join(TASKS)}")
    return [pair for pair in every if not names or pair.name.startswith(tuple(names))]


def stored(folder=RESULTS):
    """What is stored, by the name of the pair."""
    files = (folder / f"{task}.json" for task in TASKS)
    found = (json.loads(file.read_text())["pairs"] for file in files if file.exists())
    return {name: record for part in found for name, record in part.items()}


def store(records, folder=RESULTS):
    """Write what was measured; what was not stays."""
    for task in TASKS:
        new = {name: each for name, each in records.items() if name.split("/")[0] == task}
        if not new:
            continue
        old = {name: each for name, each in stored(folder).items() if name.split("/")[0] == task}
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "threads": 1}
        text = json.dumps({"pairs": old | new, "machine": machine}, indent=1)
        (folder / f"{task}.json").write_text(text + "\n")


def compared(pair, before, measure=timing.measured):
    """(word, note, record or None) of one pair: LOST only where a second measurement says so too.

    before: the stored record, or None.
    """
    if note := timing.missing(pair.module):
        return "SKIPPED", note, None
    ratio = before and before["ratio"]
    try:
        rounds = measure(pair)
        word = timing.verdict(timing.ratio(rounds).median, ratio)
        if word == "LOST":
            again = measure(pair)
            rounds = max(rounds, again, key=lambda each: timing.ratio(each).median)
            word = timing.verdict(timing.ratio(rounds).median, ratio)
    except ImportError as error:
        return "SKIPPED", str(error), None
    except Exception as error:  # a pair that fails must not keep the others from being measured
        return "FAILED", f"{type(error).__name__}: {error}".splitlines()[0], None
    record = timing.record(pair, rounds)
    changed = before and before["versions"] != record["versions"]
    return word, f"(stored with {before['versions']})" if changed else "", record


def time_of(seconds):
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def line(pair, before, word, note, record):
    """A line of the table."""
    old = f"{before['ratio']:.3g}" if before else "-"
    if record is None:
        return ROW.format(pair.name, pair.peer, "-", "-", "-", "-", old, f"{word} {note}")
    times = time_of(record["ours_s"]), time_of(record["peer_s"])
    spread = "{:.3g} to {:.3g}".format(*record["quartiles"])
    ratio = f"{record['ratio']:.3g}"
    return ROW.format(pair.name, pair.peer, *times, ratio, spread, old, f"{word} {note}".rstrip())


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--store", action="store_true")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    threadpool_limits(1)
    try:
        chosen = pairs(given.names)
    except ValueError as error:
        parser.error(str(error))
    before, records, words = stored(), {}, []
    head = ("pair", "peer", "ours", "peer's", "ratio", "quartiles", "stored", "")
    print(ROW.format(*head).rstrip(), flush=True)
    for pair in chosen:
        word, note, record = compared(pair, before.get(pair.name))
        print(line(pair, before.get(pair.name), word, note, record), flush=True)
        words.append(word)
        if record:
            records[pair.name] = record
    gone = [] if given.names else [name for name in before if name not in {p.name for p in chosen}]
    for name in gone:
        print(f"{name}: stored, but no pair has this name any more")
    if given.store:
        store(records)
    print(summary(words), timing.versions("torch", "numpy", *(pair.module for pair in chosen)))
    bad = {"LOST", "FAILED"} & {*words} or not records
    sys.exit(1 if bad else 0)


def summary(words):
    """How many of each; what was skipped or is new has not been held against anything."""
    said = {"ok": "ok", "LOST": "lost more than 30 %", "FAILED": "failed"}
    said |= {"NEW": "without a stored ratio", "SKIPPED": "skipped, not known"}
    counts = [f"{words.count(word)} {text}" for word, text in said.items() if word in words]
    return f"{len(words)} pairs: {', '.join(counts)}."


if __name__ == "__main__":
    main()
