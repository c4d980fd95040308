"""One published figure or table, computed again: what it takes, and how it is run and told."""

import csv
import hashlib
import io
import json
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from mbdl_course import show
from mbdl_course.evaluate import summary, sweep


class Scale(NamedTuple):
    """How much is computed: the sweep's grid and repetitions; note: what is smaller than in the
    paper, or that nothing is; sizes: what every call of the study is told beside its point."""

    grid: dict
    repetitions: int
    note: str
    sizes: dict = {}


class Entry(NamedTuple):
    """A figure or table that a chapter compares with a paper.

    study(seed, device, **sizes, **point) -> {method: number}, data drawn on the CPU; every name in
    the grid is a column of the table, the first that varies the horizontal axis of the figure.
    published(**point) -> {method: number}, what the paper gives of it. styles {method: role of
    `show.STYLES`}, in the table's order; a method that only the paper has is in `styles` too.
    """

    title: str
    source: str
    study: Callable
    quick: Scale
    paper: Scale
    published: Callable
    styles: dict
    unit: str
    log: bool = False  # the vertical axis: error rates


def compared(entry, rows, grid):
    """Lines {**point, method, ours, standard_error, count, failed, published} in grid order."""
    lines, by = [], list(grid)
    points = {tuple(row[name] for name in by): None for row in rows}
    for key in points:
        point = dict(zip(by, key, strict=True))
        group = [row for row in rows if tuple(row[name] for name in by) == key]
        theirs = entry.published(**point)
        if unknown := theirs.keys() - entry.styles.keys():
            raise ValueError(f"published names {unknown}, expected some of {list(entry.styles)}")
        for method in entry.styles:
            ours = [row for row in group if "error" in row or method in row]
            if not ours and method not in theirs:
                continue
            told = {"mean": None, "standard_error": None, "count": 0, "failed": 0}
            if ours:
                (told,) = summary(ours, by=[], of=method)
            line = point | {"method": method, "ours": told.pop("mean")}
            lines.append(line | told | {"published": theirs.get(method)})
    return lines


def run(name, entry, scale, folder, client=None, device="cpu", progress=True):
    """Compute an entry at a scale and write rows.csv, table.csv, figure.png and card.json.

    The folder is `folder`/<name>-<scale>; an interrupted run goes on where it was. Returns
    (lines, card). Raises ValueError for a scale that is none.
    """
    if scale not in ("quick", "paper"):
        raise ValueError(f"scale: got {scale!r}, expected quick or paper")
    size = getattr(entry, scale)
    place = Path(folder) / f"{name}-{scale}"
    place.mkdir(parents=True, exist_ok=True)
    path, start = place / "rows.csv", time.perf_counter()
    begun = path.exists()
    fixed = {"device": device} | size.sizes
    rows = sweep(entry.study, size.grid, size.repetitions, fixed=fixed, path=path,
                 progress=progress, client=client)  # fmt: skip
    lines = compared(entry, rows, size.grid)
    card = {
        "entry": name,
        "title": entry.title,
        "source": entry.source,
        "unit": entry.unit,
        "scale": scale,
        "note": size.note,
        "command": f"python -m mbdl_course reproduce {name} --scale {scale}",
        "grid": size.grid,
        "sizes": size.sizes,
        "repetitions": size.repetitions,
        "device": device,
        "workers": 1 if client is None else len(client.scheduler_info(-1)["workers"]),
        "threads": 1,
        "seconds": round(time.perf_counter() - start, 1),
        "resumed": begun,  # then the seconds are those of this run alone
        "failed": sum("error" in row for row in rows),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {"python": platform.python_version()}
        | {p: metadata.version(p).partition("+")[0] for p in ("torch", "numpy", "mbdl_course")},
    }
    (place / "card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    (place / "table.csv").write_text(text.getvalue())
    figure(entry, lines, size.grid).savefig(place / "figure.png")
    return lines, card


def figure(entry, lines, grid):
    """Ours over the first name that varies, a panel for each value of the others, with standard
    errors; hollow: published. Where nothing varies, the methods under each other."""
    varied = [name for name, values in grid.items() if len(values) > 1]
    numeric = [name for name in varied if not isinstance(grid[name][0], str)]
    known = any(line["published"] is not None for line in lines)
    title = f"{entry.unit}; hollow: published" if known else entry.unit
    if not numeric:
        labels = [" ".join(str(line[name]) for name in (*varied, "method")) for line in lines]
        marks = [
            (label, entry.styles[line["method"]])
            + tuple(line[key] for key in ("ours", "standard_error", "published"))
            for label, line in zip(labels, lines, strict=True)
        ]
        return show.dots(marks, title, log=entry.log)
    across, others = numeric[0], [name for name in varied if name != numeric[0]]
    methods, panes = list(dict.fromkeys(line["method"] for line in lines)), {}
    for line in lines:  # every method in every panel: the legend is the last one's
        key = ", ".join(f"{name} = {line[name]}" for name in others)
        panes.setdefault(key, {m: [] for m in methods})[line["method"]].append(line)
    wide = min(grid[across]) > 0 and max(grid[across]) >= 30 * min(grid[across])
    settings = {"xlabel": across, "xscale": "log" if wide else "linear",
                "yscale": "log" if entry.log else "linear"}  # fmt: skip
    parts = [
        settings | {"title": key, "lines": list(_drawn(entry, across, methods))}
        for key, methods in panes.items()
    ]
    parts[0]["ylabel"] = title
    return show.curves(*parts[:-1], parts[-1] | {"legend": "outside"}, width=13, legend=None)


def _drawn(entry, across, methods):
    """What `show.curves` draws of each method: our line, and the published points without one."""
    hollow = {"linestyle": "none", "markerfacecolor": "none", "markersize": 13, "label": "_"}
    for method, lines in methods.items():
        for key, changes, *error in (("ours", {}, "standard_error"), ("published", hollow)):
            there = [line for line in lines if line[key] is not None]
            columns = [[line[name] for line in there] for name in (across, key, *error)]
            yield method, entry.styles[method], changes | {"markevery": 1}, *columns


def told(name, entry, lines, card):
    """The comparison as text: ours beside the paper's."""
    head = [*card["grid"], "method", f"ours [{entry.unit}]", "published"]
    body = []
    for line in lines:
        ours = "-"
        if line["count"]:
            ours = f"{line['ours']:.4g} ± {line['standard_error']:.2g} ({line['count']})"
        if line["failed"]:
            ours += f", {line['failed']} failed"
        theirs = "-" if line["published"] is None else f"{line['published']:.4g}"
        body.append([*(str(line[k]) for k in card["grid"]), line["method"], ours, theirs])
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    rows = ("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip()
            for row in (head, *body))  # fmt: skip
    took = f"{card['seconds']} s" + " since it was resumed" * card["resumed"]
    return "\n".join([f"{name} ({card['scale']}): {entry.title}", entry.source, card["note"],
                      f"{took}, {card['device']}", "", *rows])  # fmt: skip
