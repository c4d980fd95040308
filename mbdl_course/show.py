"""Figures and tables: one style per strategy, alt text always, a recipe card folded under.

Figures are drawn on `matplotlib.figure.Figure`, never through pyplot, so that nothing is global and
a live lab can keep its figure.
"""

import base64
import html
import io
import json
import math
import platform
import time
from importlib.metadata import PackageNotFoundError, version

import matplotlib
import torch
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from .evaluate import mean_and_error

try:
    import resource
except ImportError:  # Windows has no resource module; the card then leaves memory out
    resource = None

DPI = 100

# Okabe-Ito colours; every role differs from every other in colour, in marker and in line style.
STYLES = {
    "truth": {"color": "#000000", "marker": "o", "linestyle": "-"},
    "observation": {"color": "#999999", "marker": ".", "linestyle": ":"},
    "model-based": {"color": "#0072B2", "marker": "s", "linestyle": "--"},
    # other model-based algorithms than the first on a plot: dark, told apart by marker and line
    "FISTA": {"color": "#0093AF", "marker": "h", "linestyle": (0, (6, 1))},
    "ADMM": {"color": "#6A51A3", "marker": ">", "linestyle": (0, (4, 1, 1, 1))},
    "IHT": {"color": "#7F7F7F", "marker": "*", "linestyle": (0, (2, 1))},
    "learned": {"color": "#56B4E9", "marker": "D", "linestyle": "-."},
    "unfolded": {"color": "#D55E00", "marker": "^", "linestyle": (0, (8, 2))},
    "matrices": {"color": "#8B2E00", "marker": "p", "linestyle": (0, (10, 1, 2, 1))},  # unfolded
    # other unfolded networks on one plot: ISTA's with coupled weights, and with support selection
    "coupled": {"color": "#CC6677", "marker": "<", "linestyle": (0, (7, 1, 1, 1))},
    "selected": {"color": "#AA4499", "marker": "H", "linestyle": (0, (9, 1, 3, 1))},
    "DNN-aided": {"color": "#009E73", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    "augmented": {"color": "#CC79A7", "marker": "P", "linestyle": (0, (3, 1))},
    "black box": {"color": "#E69F00", "marker": "X", "linestyle": (0, (1, 1))},
    "live": {"color": "#D81B60", "marker": "d", "linestyle": (0, (20, 1))},  # just trained
    "bound": {"color": "#555555", "marker": "_", "linestyle": (0, (12, 4))},
}

# 14 pt at 100 dpi are 19.4 pixels: 14 pt on a slide that shows the picture at its own size.
HOUSE = {
    "font.size": 14,
    "axes.titlesize": 15,
    "axes.labelsize": 14,
    "xtick.labelsize": 14,
    "ytick.labelsize": 14,
    "legend.fontsize": 14,
    "legend.framealpha": 0.9,
    "lines.linewidth": 2.2,
    "lines.markersize": 8,
    "axes.grid": True,
    "grid.alpha": 0.35,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "image.interpolation": "nearest",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def house():
    """The house style, as `with house():` or as the decorator `@house()`."""
    return matplotlib.rc_context(HOUSE)


def style(role, **changes):
    """Colour, marker and line style of a `role`, e.g. `axes.plot(k, mse, **style("unfolded"))`.

    `changes` replace or add line properties. Raises ValueError for an unknown role.
    """
    if role not in STYLES:
        raise ValueError(f"role: expected one of {', '.join(STYLES)}, got {role!r}")
    return STYLES[role] | changes


@house()
def panels(n, titles=(), width=10.4, height=4.0):
    """Figure of `width` x `height` inches with `n` axes in a row and fixed margins: (figure, axes).

    Margins are fixed because a layout engine costs three times the drawing and lets pictures jump.
    """
    if len(titles) not in (0, n):
        raise ValueError(f"titles: expected {n} (one per panel), got {len(titles)}")
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, n, squeeze=False)[0])
    gap = 1.05  # inches, enough for a label and five characters at the ticks
    each = (width - n * gap - 0.25) / n
    figure.subplots_adjust(
        left=gap / width,
        right=1 - 0.25 / width,
        bottom=0.65 / height,
        top=1 - 0.42 / height,
        wspace=gap / each,
    )
    for panel, title in zip(axes, titles, strict=False):
        panel.set_title(title)
    return figure, axes


def live(*artists):
    """Mark artists (or the containers `stem`, `errorbar` and `bar` return) that a lab moves.

    Only they are redrawn while nothing else in the figure changes. Returns what it was given.
    """
    for artist in artists:
        if isinstance(artist, Artist):
            artist.set_animated(True)
        elif artist is not None:
            live(*artist)
    return artists[0] if len(artists) == 1 else artists


def limits(axes, x=None, y=None):
    """Set limits only where they differ: setting the same ones again would cost a full drawing."""
    if x is not None and tuple(x) != axes.get_xlim():
        axes.set_xlim(x)
    if y is not None and tuple(y) != axes.get_ylim():
        axes.set_ylim(y)


class Frame:
    """A figure that stays: `png()` draws what has changed since the last call."""

    def __init__(self, figure):
        self.figure = figure
        self.background = None

    def draw(self):
        """The picture as an RGB image, live artists last, in the order of their zorder."""
        canvas = self.figure.canvas
        if self.background is None or self.figure.stale:  # live artists do not make it stale
            canvas.draw()
            self.background = canvas.copy_from_bbox(self.figure.bbox)
            self.live = sorted(self.figure.findobj(Artist.get_animated), key=Artist.get_zorder)
        else:
            canvas.restore_region(self.background)
        for artist in self.live:
            artist.draw(canvas.renderer)
        size = canvas.get_width_height()
        return Image.frombuffer("RGBA", size, canvas.buffer_rgba(), "raw", "RGBA", 0, 1).convert(
            "RGB"
        )

    def png(self):
        """The picture as PNG, packed for speed."""
        return _png(self.draw(), compress_level=1)

    def small(self):
        """The picture as PNG with at most 256 colours, packed for size: what a notebook stores."""
        return _png(self.draw().quantize(256, dither=Image.Dither.NONE), optimize=True)


class Curve:
    """Small live figure of a training's loss and validation.

    Its limits move in steps, so that few drawings are full ones.
    """

    @house()
    def __init__(self, falls="loss"):
        self.figure, (self.axes,) = panels(1, width=4.2, height=1.7)
        self.figure.subplots_adjust(left=0.24, right=0.76, top=0.92, bottom=0.36)
        self.axes.set(xlabel="step", ylabel=falls, yscale="log")
        self.axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        self.axes.yaxis.set_minor_formatter("")
        self.right = self.axes.twinx()
        self.right.grid(False)
        self.right.set_ylabel("valid. [dB]", color="#0072B2")
        self.right.yaxis.set_major_locator(MaxNLocator(3))
        line = {"color": "#0072B2", "linestyle": "--", "marker": "s", "markersize": 5}
        self.loss = live(self.axes.plot([], [], color="black")[0])
        self.validation = live(self.right.plot([], [], **line)[0])
        self.frame = Frame(self.figure)
        self.seen = None

    def png(self, curve, steps):
        """Draw the points (step, loss, validation) so far, at most about 400 of them."""
        points = curve[:: max(1, len(curve) // 400)]
        known = [(step, value) for step, _, value in points if value is not None]
        pairs = [pair for k, pair in enumerate(known) if k == 0 or pair[1] != known[k - 1][1]]
        self.loss.set_data([p[0] for p in points], [p[1] for p in points])
        self.validation.set_data([p[0] for p in pairs], [p[1] for p in pairs])
        self.validation.set_markevery(max(1, len(pairs) // 8))
        losses = [math.log10(loss) for _, loss, _ in points if 0 < loss < math.inf] or [0.0]
        values = [value for _, value in pairs if math.isfinite(value)] or [0.0]
        low, high = math.floor(min(losses)), math.floor(max(losses)) + 1
        down, up = 5 * math.floor(min(values) / 5 - 0.1), 5 * math.ceil(max(values) / 5 + 0.1)
        seen = (steps, low, high, down, up, bool(pairs))
        if seen != self.seen:
            self.seen = seen
            self.axes.set(xlim=(0, max(steps, 1)), ylim=(10.0**low, 10.0**high))
            self.axes.set_yticks([10.0**low, 10.0**high])
            self.right.set_ylim(down, up)
            self.right.set_visible(bool(pairs))
        return self.frame.png()


def _png(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


class Html:
    """What a cell shows: `html` in the Lab and on the web, `text` where only text is possible."""

    def __init__(self, html, text):
        self.html, self.text = html, text

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/html": self.html, "text/plain": self.text}


def picture(figure, alt, caption="", card=None):
    """`figure` with its `alt` text, an optional caption, and the recipe `card` folded under it.

    Raises ValueError for an empty alt text.
    """
    return Html(_figure(Frame(figure).small(), alt, caption, card), alt)


def described(alt):
    """Raises ValueError if the alt text is empty."""
    if not alt.strip():
        raise ValueError("alt: expected a sentence or two on what the picture shows, got ''")


def _figure(png, alt, caption, card=None, css=""):
    described(alt)
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    return (
        f'<figure class="mbdl-figure {css}" style="margin:0">'
        f'<img style="max-width:100%" alt="{html.escape(alt)}" src="{source}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>" + (card.html() if card else "")
    )


def table(rows, header, caption, card=None):
    """Table of `rows` (texts; the caller formats numbers) under `header`.

    The first entry of a row names it. Raises ValueError for a row shorter or longer than `header`.
    """
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(
                f"rows: expected {len(header)} entries in row {number}, got {len(row)}"
            )
    head = "".join(f'<th scope="col">{html.escape(str(name))}</th>' for name in header)
    body = "".join(map(_row, rows))
    text = "\n".join(" | ".join(map(str, row)) for row in [header, *rows])
    return Html(
        f'<table class="mbdl-table"><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        + (card.html() if card else ""),
        f"{caption}\n{text}",
    )


def _row(entries):
    name, *others = (
        html.escape(", ".join(map(str, entry)) if isinstance(entry, list) else str(entry))
        for entry in entries
    )
    cells = "".join(f"<td>{other}</td>" for other in others)
    return f'<tr><th scope="row">{name}</th>{cells}</tr>'


class Recipe:
    """What a comparison was made with, measured while its `with` block runs.

        with Recipe(data="...", n_train=1000, seeds=range(5), dtype=torch.float32) as card:
            ...
        picture(figure, alt="...", card=card)

    Memory is the growth of the process's peak (resident set; on a GPU, of allocated memory) in MB.
    """

    def __init__(self, data, *, n_train=None, epochs=None, seeds=None, dtype=None, device="cpu"):
        self.facts = {
            "data": data,
            "n_train": n_train,
            "epochs": epochs,
            "seeds": list(seeds) if hasattr(seeds, "__iter__") else seeds,
            "dtype": str(dtype).removeprefix("torch.") if dtype else None,
            "device": str(device),
        }

    def __enter__(self):
        self.peak = self._memory()
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_):
        seconds = time.perf_counter() - self.start
        peak = self._memory()
        self.facts |= {
            "seconds": round(seconds, 2),
            "memory_mb": None if peak is None else round(peak - self.peak),
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version()}
            | {name: _version(name) for name in ("torch", "numpy", "mbdl_course")},
        }

    def _memory(self):
        if self.facts["device"].startswith("cuda"):
            return torch.cuda.max_memory_allocated() / 2**20
        if resource is None:
            return None
        unit = 2**20 if platform.system() == "Darwin" else 2**10  # bytes there, KiB elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    @classmethod
    def stored(cls, *entries):
        """The card of shipped weights: what the manifest's entries say of their making."""
        first = entries[0]
        card = cls(first["problem"], n_train=first["n_train"], seeds=first["seeds"])
        card.facts |= {
            "dtype": first["dtype"],
            "command": ", ".join(entry["command"] for entry in entries),
            "steps": ", ".join(entry["steps"] for entry in entries),
            "seconds": sum(entry["seconds"] for entry in entries),
            "memory_mb": max(entry["memory_mb"] for entry in entries),
            "threads": first["threads"],
            "versions": {"torch": first["torch"]},
        }
        return card

    @classmethod
    def computed(cls, *cards):
        """The card of stored results: what `reproduce` wrote beside their rows."""
        first = cards[0]
        card = cls("; ".join(f"{each['title']}: {each['note']}" for each in cards),
                   seeds=first["repetitions"], device=first["device"])  # fmt: skip
        card.facts |= {
            "command": ", ".join(each["command"] for each in cards),
            "seconds": round(sum(each["seconds"] for each in cards), 1),
            "threads": first["threads"],
            "workers": first["workers"],
            "versions": first["versions"],
        }
        return card

    def html(self):
        """The card as a folded table, and as JSON in a comment that `report` collects."""
        if "seconds" not in self.facts:
            raise ValueError(
                "card: expected a Recipe whose `with` block has ended, got an unused one"
            )
        flat = {name: value for name, value in self.facts.items() if name != "versions"}
        flat |= self.facts["versions"]
        rows = "".join(_row(row) for row in flat.items() if row[1] is not None)
        record = json.dumps(self.facts).replace("--", "-\\u002d")  # "--" would end the comment
        return (
            '<details class="mbdl-card"><summary>Recipe card</summary>'
            f"<table>{rows}</table></details>"
            f"<!-- mbdl-card {record} -->"
        )


def _version(name):
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


# ---- figures of the chapters below this line ----


def plus_minus(values):
    """Text of the mean of repeated figures and its standard error, "-31.2 ± 0.04"."""
    mean, error = mean_and_error(values)
    return f"{mean:.1f} ± {error:.2f}"


def numbers(values):
    """A tensor or sequence as a flat list of plain numbers, wherever it lives."""
    return torch.as_tensor(values).detach().cpu().double().flatten().tolist()


@house()
def curves(*panes, width=10.4, height=4.2, legend="best"):
    """Line plots side by side; a pane is a dict: title, xlabel, ylabel, xscale, yscale, lines..

    lines: a list of (label, role, x, y) or (label, role, x, y, error): error bars are standard
    errors, and a dict after the role changes the style.
    """
    figure, axes = panels(len(panes), [pane.get("title", "") for pane in panes], width, height)
    for panel, pane in zip(axes, panes, strict=True):
        for label, role, *rest in pane["lines"]:
            changes = rest.pop(0) if isinstance(rest[0], dict) else {}
            x, y, *error = map(numbers, rest)
            look = {"markevery": max(1, len(x) // 12)} | style(role, label=label) | changes
            if error:
                panel.errorbar(x, y, error[0], capsize=4, **look)
            else:
                panel.plot(x, y, **look)
        settings = ("xlabel", "ylabel", "xscale", "yscale", "ylim", "xlim", "xticks")
        panel.set(**{key: pane[key] for key in settings if key in pane})
        place = pane.get("legend", legend)
        if place == "outside":  # beside the last panel
            panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
            figure.subplots_adjust(right=0.98 - 3.3 / width)
        elif place:
            panel.legend(loc=place)
    return figure


@house()
def dots(lines, xlabel, log=False, width=10.4):
    """Figures under each other: lines of (label, role, mean, standard error, published); None where
    there is no such figure. Ours filled, with an error bar; published hollow."""
    figure = Figure(figsize=(width, 1.0 + 0.42 * len(lines)), dpi=DPI)
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for row, (_, role, mean, error, published) in enumerate(lines):
        look = style(role, linestyle="none")
        if mean is not None:
            panel.errorbar(mean, row, xerr=error, capsize=4, **look)
        if published is not None:
            panel.plot(published, row, **look | {"markerfacecolor": "none", "markersize": 13})
    panel.set_yticks(range(len(lines)), [label for label, *_ in lines])
    panel.set(xlabel=xlabel, ylim=(len(lines) - 0.5, -0.5), xscale="log" if log else "linear")
    longest = max(len(str(label)) for label, *_ in lines)
    height = figure.get_figheight()
    figure.subplots_adjust(left=min(0.6, 0.115 * longest / width + 0.02), right=0.97,
                           bottom=0.7 / height, top=1 - 0.15 / height)  # fmt: skip
    return figure


@house()
def space(pictures, width=10.4, height=3.6):
    """Paths in three dimensions side by side: {title: [(role, points (T, 3)), ...]}, one scale."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    for number, (title, paths) in enumerate(pictures.items(), 1):
        panel = figure.add_subplot(1, len(pictures), number, projection="3d")
        for role, points in paths:
            x, y, z = torch.as_tensor(points).detach().cpu().numpy().T
            panel.plot(x, y, z, **style(role, marker="", linewidth=1.2))
        panel.set_title(title, pad=0)
        panel.set(xlim=(-25, 25), ylim=(-30, 30), zlim=(0, 50))
        panel.set(xticklabels=[], yticklabels=[], zticklabels=[])
        panel.view_init(15, -60)
    figure.subplots_adjust(left=0.0, right=1.0, bottom=0.0, top=0.92, wspace=0.0)
    return figure


@house()
def images(pictures, width=10.4, peak=1.0):
    """Grey images side by side: {title: image}, black at 0 and white at `peak`."""
    figure = Figure(figsize=(width, 0.5 + width / len(pictures)), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(pictures), squeeze=False)[0]
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.88, wspace=0.05)
    for panel, (title, image) in zip(axes, pictures.items(), strict=True):
        panel.imshow(torch.as_tensor(image).cpu().numpy(), cmap="gray", vmin=0, vmax=peak)
        panel.set_title(title)
        panel.set_axis_off()
    return figure


def stems(values):
    """The points of a line that draws each non-zero value as a stem from zero."""
    x, y = [], []
    for i, value in enumerate(values):
        if value:
            x += [i, i, math.nan]
            y += [0.0, value, math.nan]
    return x, y


@house()
def recovery(length, most, lines, *, span, ylim, ylabel="NMSE [dB]", sparse=True, bound=True,
             xlabel="iteration", titles=("signal", "error by iteration"), height=4.4):  # fmt: skip
    """The view of a recovery lab: the signal on the left, one error curve per method on the right.

    length: of the signal; most: iterations on the axis; lines: {label: role}; span: limits of the
    signal's axis; ylim: of the error's. update(data) takes a dict: truth, estimate (length,),
    label (whose estimate), curves {label: values from iteration 0 on}, at (iteration marked), and
    with `bound` level, the height of the oracle's line.
    """
    figure, (left, right) = panels(2, titles, width=11.6, height=height)
    left.set_position([0.065, 0.17, 0.36, 0.72])
    right.set_position([0.505, 0.17, 0.30, 0.72])
    left.set(xlim=(-1, length), ylim=span, xlabel="entry" if sparse else "sample")
    right.set(xlim=(0, most), ylim=ylim, xlabel=xlabel, ylabel=ylabel)
    look = {"markersize": 9, "fillstyle": "none", "linestyle": "none"} if sparse else {"marker": ""}
    (truth,) = left.plot([], [], zorder=5, **style("truth", label="truth", **look))
    marks = {"marker": ""} if not sparse else {"marker": "", "linestyle": "-"}
    guess = {
        label: left.plot([], [], **style(role, label="estimate", **marks))[0]
        for label, role in lines.items()
    }
    left.legend(handles=[truth], loc="lower right" if sparse else "upper right")
    drawn = {
        label: right.plot([], [], **style(role, label=label))[0] for label, role in lines.items()
    }
    at = right.axvline(0, color="#999999", linewidth=1.5)
    level = right.axhline(math.nan, **style("bound", marker="", label="oracle"))
    handles = [*drawn.values(), *([level] if bound else [])]
    right.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    live(truth, *guess.values(), *drawn.values(), at, level)

    def update(data):
        s, s_hat = numbers(data["truth"]), numbers(data["estimate"])
        positions = [i for i, value in enumerate(s) if value or not sparse]
        truth.set_data(positions, [s[i] for i in positions])
        for label, line in guess.items():
            line.set_data(*(([], []) if label != data["label"] else
                            stems(s_hat) if sparse else (range(length), s_hat)))  # fmt: skip
        left.set_title(f"{titles[0]}, {data['label']}")
        for label, line in drawn.items():
            values = numbers(data["curves"].get(label, []))
            line.set_data(range(len(values)), values)
            line.set_markevery(max(1, len(values) // 8))
        at.set_xdata([data["at"]] * 2)
        level.set_ydata([data.get("level", math.nan)] * 2)

    return figure, update


def live_lines(panes, lines, width=11.0, height=4.2):
    """The view of a lab that moves lines: (figure, update).

    panes: a list of dicts of axes properties (title, xlabel, xlim, yscale, ...) and `legend`, where
    to put it; lines: {label: (number of its pane, role) or (number, role, {changes of the style})}.
    update(data) takes {label: (x, y)}; a line that is not named is empty.
    """
    figure, axes = panels(len(panes), width=width, height=height)
    for panel, pane in zip(axes, panes, strict=True):
        panel.set(**{name: value for name, value in pane.items() if name != "legend"})
    drawn = {
        label: axes[number].plot(
            [], [], **style(role, **{"label": label, **(changes[0] if changes else {})})
        )[0]
        for label, (number, role, *changes) in lines.items()
    }
    for panel, pane in zip(axes, panes, strict=True):
        if panel.get_legend_handles_labels()[0]:  # a label that starts with _ is not listed
            panel.legend(loc=pane.get("legend", "upper right"))
    live(*drawn.values())

    def update(data):
        for label, line in drawn.items():
            x, y = map(numbers, data.get(label, ([], [])))
            line.set_data(x, y)
            line.set_markevery(1 if line.get_linestyle() == "None" else max(1, len(x) // 8))

    return figure, update


MAP = {"cmap": "inferno", "interpolation": "nearest"}  # dark to bright, told apart in grey too


@house()
def projections(pictures, low=-30.0, width=10.4):
    """Maps in dB side by side with one colour bar: {title: picture}, 0 dB at the top."""
    figure = Figure(figsize=(width, 0.45 + 0.92 * width / (len(pictures) + 0.5)), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(pictures), squeeze=False)[0]
    figure.subplots_adjust(left=0.01, right=0.90, bottom=0.05, top=0.89, wspace=0.05)
    for panel, (title, picture) in zip(axes, pictures.items(), strict=True):
        drawn = panel.imshow(torch.as_tensor(picture).cpu().numpy(), vmin=low, vmax=0, **MAP)
        panel.set_title(title)
        panel.set_axis_off()
    box = axes[-1].get_position()
    bar = figure.add_axes([0.915, box.y0, 0.015, box.height])
    figure.colorbar(drawn, cax=bar, label="dB")
    return figure


@house()
def phases(x, y, line, *, xlabel, ylabel, label, width=8.2, height=4.4):
    """The view of a study of two names: a part of 0 to 1 for each pair, grey until it is known.

    x, y: the values, evenly spaced and rising; line: (label, x values, y values), drawn over it;
    label: of the colours. update(data) takes a dict: part (len(y), len(x)), NaN where nothing is
    known yet, and told, the title.
    """
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    panel = figure.add_axes([0.11, 0.16, 0.56, 0.74])
    half_x, half_y = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
    extent = (x[0] - half_x, x[-1] + half_x, y[0] - half_y, y[-1] + half_y)
    colours = matplotlib.colormaps["cividis"].with_extremes(bad="#dddddd")
    empty = torch.full((len(y), len(x)), math.nan).numpy()
    options = {"origin": "lower", "extent": extent, "aspect": "auto", "vmin": 0, "vmax": 1}
    drawn = live(panel.imshow(empty, cmap=colours, **options))
    name, *points = line
    live(panel.plot(*map(numbers, points), color="#FFFFFF", linewidth=5)[0])
    edge = {"label": name, "marker": "", "color": "#D55E00"}
    live(panel.plot(*map(numbers, points), **style("bound", **edge))[0])
    panel.set(xlabel=xlabel, ylabel=ylabel, xlim=extent[:2], ylim=extent[2:])
    panel.grid(False)
    figure.colorbar(drawn, cax=figure.add_axes([0.69, 0.16, 0.025, 0.74]), label=label)
    panel.legend(loc="lower left", bbox_to_anchor=(1.26, 0.0), frameon=False)

    def update(data):
        drawn.set_data(torch.as_tensor(data["part"]).cpu().numpy())
        if data["told"] != panel.get_title():
            panel.set_title(data["told"])

    return figure, update


@house()
def separation(size, lines, titles, *, most, ylim, low=-30.0, xlabel="iteration", height=3.7):
    """The view of a separation lab: three maps in dB, then one error curve per method.

    size: pixels each way; lines: {label: role}; titles: of the three maps; most: iterations on the
    axis. update(data) takes a dict: maps (three pictures in dB), label (whose estimate the last map
    is), curves {label: values from iteration 0 on}, at (the iteration marked).
    """
    figure = Figure(figsize=(11.6, height), dpi=DPI)
    FigureCanvasAgg(figure)
    shown = []
    for i, title in enumerate(titles):
        panel = figure.add_axes([0.01 + 0.2 * i, 0.25, 0.19, 0.19 * 11.6 / height])
        panel.set_title(title)
        panel.set_axis_off()
        empty = torch.full((size, size), low).numpy()
        shown.append(live(panel.imshow(empty, vmin=low, vmax=0, aspect="auto", **MAP)))
    bar = figure.add_axes([0.02, 0.15, 0.54, 0.035])
    figure.colorbar(shown[0], cax=bar, orientation="horizontal")
    figure.text(0.575, 0.05, "dB", fontsize=14)
    curve = figure.add_axes([0.66, 0.17, 0.17, 0.70])
    curve.set(xlim=(0, most), ylim=ylim, xlabel=xlabel, title="error of S [dB]")
    curve.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    drawn = {
        label: live(curve.plot([], [], **style(role, label=label))[0])
        for label, role in lines.items()
    }
    at = live(curve.axvline(0, color="#999999", linewidth=1.5))
    curve.legend(
        handles=[*drawn.values()], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False
    )

    def update(data):
        for image, picture in zip(shown, data["maps"], strict=True):
            image.set_data(torch.as_tensor(picture).cpu().numpy())
        title = f"{titles[-1]}, {data['label']}"
        if title != shown[-1].axes.get_title():  # setting the same one again is a full drawing
            shown[-1].axes.set_title(title)
        for label, line in drawn.items():
            values = numbers(data["curves"].get(label, []))
            line.set_data(range(len(values)), values)
            line.set_markevery(max(1, len(values) // 8))
        at.set_xdata([data["at"]] * 2)

    return figure, update
