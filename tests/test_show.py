"""Figures and tables: styles, blitting, alt text, recipe cards."""

import base64
import html
import io
import itertools
import json
import math
import re
import time

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from mbdl_course import show

ALT = 'Error of "LISTA" < ISTA'


def two_panels():
    with show.house():
        figure, (left, right) = show.panels(2, ["a", "b"])
        line = show.live(
            left.plot(range(100), np.zeros(100), **show.style("unfolded", marker=""))[0]
        )
        right.plot([1, 2, 3], label="fixed")
        right.legend()
        left.set_ylim(-3, 3)
    return figure, left, line


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)


def test_roles_differ_in_colour_marker_and_line():
    for key in ("color", "marker", "linestyle"):
        for (one, a), (other, b) in itertools.combinations(show.STYLES.items(), 2):
            assert a[key] != b[key], f"{one} and {other} share their {key}"
    assert show.style("unfolded", marker="")["marker"] == "" and show.STYLES["unfolded"]["marker"]
    with pytest.raises(ValueError, match="role: expected one of truth.*got 'LISTA'"):
        show.style("LISTA")


@pytest.mark.parametrize("n", [1, 2, 3])
def test_panels_are_legible_and_fit(n):
    figure, axes = show.panels(n, [f"panel {k}" for k in range(n)])
    assert len(axes) == n
    with show.house():
        for panel in axes:
            panel.plot([0, 1], [-20, 0], label="ISTA")
            panel.set(xlabel="iteration", ylabel="NMSE [dB]")
            panel.legend()
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 14
    width, height = figure.canvas.get_width_height()
    for panel in axes:
        box = panel.get_tightbbox()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    for one, other in itertools.pairwise(axes):
        assert one.get_tightbbox().x1 <= other.get_tightbbox().x0
    with pytest.raises(ValueError, match="titles"):
        show.panels(2, ["one"])


def test_frame_redraws_only_live_artists_and_the_same_pixels():
    figure, axes, line = two_panels()
    frame, moves = show.Frame(figure), np.sin(np.arange(100) / 5)
    first = frame.png()
    background = frame.background
    line.set_ydata(moves)
    moved = frame.png()
    assert moved != first and frame.background is background
    other, _, other_line = two_panels()
    other_line.set_ydata(moves)
    assert show.Frame(other).png() == moved  # byte for byte what a fresh figure shows
    axes.set_title("changed")
    frame.png()
    assert frame.background is not background
    background = frame.background
    show.limits(axes, y=(-3, 3))  # no change, no full drawing
    frame.png()
    assert frame.background is background
    show.limits(axes, x=(0, 50), y=(-2, 2))
    frame.png()
    assert frame.background is not background and axes.get_ylim() == (-2, 2)


def test_frame_is_quick():
    figure, _, line = two_panels()
    frame = show.Frame(figure)
    frame.png()
    seconds = []
    for _ in range(10):
        line.set_ydata(np.random.default_rng(0).normal(size=100))
        start = time.perf_counter()
        frame.png()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05


def test_live_marks_containers():
    _, (axes,) = show.panels(1)
    stem = show.live(axes.stem([1, 2, 3]))
    error, _ = show.live(axes.errorbar([1, 2], [1, 2], yerr=[1, 1]), axes.set_title("t"))
    assert stem.markerline.get_animated() and stem.stemlines.get_animated()
    assert error.lines[0].get_animated() and error.lines[2][0].get_animated()
    assert axes.title.get_animated()


def test_picture_carries_alt_and_caption():
    figure, *_ = two_panels()
    shown = show.picture(figure, ALT, "5 < 6")._repr_mimebundle_()
    assert shown["text/plain"] == ALT
    assert f'alt="{html.escape(ALT)}"' in shown["text/html"]
    assert "<figcaption>5 &lt; 6</figcaption></figure>" in shown["text/html"]
    png = base64.b64decode(re.search(r'base64,([^"]+)"', shown["text/html"])[1])
    assert len(png) < 60_000
    assert np.abs(pixels(png) - pixels(show.Frame(figure).png())).mean() < 1
    for alt in ("", "  "):
        with pytest.raises(ValueError, match="alt"):
            show.picture(figure, alt)


def test_photographs_survive_256_colours():
    figure, (axes,) = show.panels(1)
    axes.imshow(np.linspace(0, 1, 512 * 512).reshape(512, 512) ** 0.5, cmap="gray")
    frame = show.Frame(figure)
    assert np.abs(pixels(frame.small()) - pixels(frame.png())).max() <= 8


def test_recipe_card():
    with show.Recipe(
        "ECG -->", n_train=10, epochs=3, seeds=range(3), dtype="torch.float32"
    ) as card:
        time.sleep(0.02)
    figure, *_ = two_panels()
    shown = show.picture(figure, ALT, card=card).html
    assert (
        shown.count("-->") == 1
        and "<details" in shown
        and "<summary>Recipe card</summary>" in shown
    )
    facts = json.loads(re.search(r"<!-- mbdl-card (.*?) -->", shown)[1])
    assert (
        facts["data"] == "ECG -->" and facts["seeds"] == [0, 1, 2] and facts["dtype"] == "float32"
    )
    assert 0.02 <= facts["seconds"] < 5 and facts["threads"] >= 1 and facts["device"] == "cpu"
    assert {"python", "torch", "numpy"} <= set(facts["versions"])
    assert '<th scope="row">torch</th>' in shown and "None" not in shown
    with pytest.raises(ValueError, match="card"):
        show.Recipe("nothing").html()


def test_recipe_sees_memory():
    with show.Recipe("zeros") as card:
        np.ones(60 * 2**17)  # 60 MB
    assert card.facts["memory_mb"] is None or card.facts["memory_mb"] >= 0


def test_table_is_marked_up():
    shown = show.table(
        [["ISTA", "-6.1 ± 0.1"], ["<LISTA>", "-13.2"]], ["method", "NMSE [dB]"], "Depth 10"
    )
    assert (
        shown.html.count('<th scope="col">') == 2
        and '<th scope="row">&lt;LISTA&gt;</th>' in shown.html
    )
    assert "<caption>Depth 10</caption>" in shown.html and "ISTA | -6.1" in shown.text
    with pytest.raises(ValueError, match="expected 2 entries in row 1, got 1"):
        show.table([["a", "b"], ["c"]], ["x", "y"], "t")


# ---- figures of the chapters ----


def test_curves_draws_every_line_with_its_role():
    lines = [
        ("a", "learned", [1, 2], [3, 4]),
        ("b", "bound", {"marker": "x"}, [1, 2], [0, 1], [1, 1]),
    ]
    figure = show.curves({"title": "t", "xlabel": "x", "lines": lines, "yscale": "log"})
    (panel,) = figure.axes
    assert panel.get_title() == "t" and panel.get_yscale() == "log"
    assert panel.lines[0].get_color() == show.STYLES["learned"]["color"]
    assert panel.lines[1].get_marker() == "x"
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["a", "b"]


def test_recovery_shows_the_estimate_of_the_label_and_every_curve():
    lines = {"ISTA": "model-based", "LISTA": "matrices"}
    figure, update = show.recovery(5, 10, lines, span=(-2, 2), ylim=(-40, 5))
    left, right = figure.axes
    data = {"truth": [0, 1, 0, 0, -1], "estimate": [0, 0.5, 0, 0, 0], "label": "LISTA", "at": 2}
    update(data | {"curves": {"ISTA": [0, -1, -2], "LISTA": [0, -5]}, "level": -30.0})
    truth, ista, lista = left.lines
    assert list(truth.get_xdata()) == [1, 4] and len(ista.get_xdata()) == 0
    assert list(lista.get_xdata()[:2]) == [1, 1] and lista.get_ydata()[1] == 0.5
    assert "LISTA" in left.get_title()
    assert [len(line.get_xdata()) for line in right.lines[:2]] == [3, 2]
    update(data | {"curves": {"ISTA": [0.0]}})
    assert len(right.lines[1].get_xdata()) == 0


def test_plus_minus_and_images():
    assert show.plus_minus([1.0, 2.0, 3.0]) == "2.0 ± 0.58"
    figure = show.images({"a": [[0.0, 1.0], [1.0, 0.0]], "b": [[0.5, 0.5], [0.5, 0.5]]})
    assert [panel.get_title() for panel in figure.axes] == ["a", "b"]


def test_a_stored_card_says_what_the_manifest_says():
    entry = {
        "problem": "p", "n_train": [10], "seeds": [1, 2], "dtype": "float32", "command": "make it",
        "steps": "300", "seconds": 7, "memory_mb": 500, "threads": 1, "torch": "2.13.0",
    }  # fmt: skip
    text = show.Recipe.stored(entry, entry | {"command": "and this"}).html()
    assert "make it, and this" in text and "14" in text and "mbdl-card" in text


def test_projections_share_one_scale_in_decibels():
    figure = show.projections({"a": [[0.0, -40.0]], "b": [[-10.0, -20.0]]}, low=-30.0)
    first, second, bar = figure.axes
    assert [panel.get_title() for panel in (first, second)] == ["a", "b"]
    assert first.images[0].get_clim() == second.images[0].get_clim() == (-30.0, 0.0)
    assert bar.get_ylabel() == "dB"


def test_separation_shows_three_maps_and_every_curve():
    lines = {"FISTA": "FISTA", "CORONA": "matrices"}
    figure, update = show.separation(2, lines, ("x", "S", "found"), most=10, ylim=(-15, 10))
    maps = [[[-1.0, -2.0], [-3.0, -4.0]]] * 3
    update({"maps": maps, "label": "CORONA", "curves": {"FISTA": [0.0, -1.0]}, "at": 1})
    *panels, _, curve = figure.axes
    assert [panel.get_title() for panel in panels] == ["x", "S", "found, CORONA"]
    assert panels[2].images[0].get_array().tolist() == maps[2]
    assert [len(line.get_xdata()) for line in curve.lines[:2]] == [2, 0]


def test_dots_of_ours_and_the_papers():
    lines = [("ISTA", "model-based", -10.0, 0.5, -12.0), ("net", "unfolded", -20.0, 0.1, None)]
    lines.insert(1, ("a longer name", "learned", None, None, -3.0))
    figure = show.dots(lines, "dB")
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.get_yticklabels()] == ["ISTA", "a longer name", "net"]
    hollow = [line for line in panel.lines if line.get_markerfacecolor() == "none"]
    assert [line.get_xdata()[0] for line in hollow] == [-12.0, -3.0]
    assert panel.get_xlabel() == "dB" and len(panel.containers) == 2


def test_phases_are_grey_until_known():
    figure, update = show.phases([10, 20, 30], [1, 2], ("theory", [10, 30], [1, 2]), xlabel="n",
                                 ylabel="k", label="part")  # fmt: skip
    part = torch.tensor([[0.0, 0.5, 1.0], [math.nan, 0.0, 1.0]])
    update({"part": part, "told": "5 calls"})
    drawn = figure.axes[0].images[0]
    assert figure.axes[0].get_title() == "5 calls"
    assert drawn.get_array().mask.sum() == 1 and drawn.get_extent() == [5, 35, 0.5, 2.5]
    with show.house():
        assert show.Frame(figure).png()


def test_a_card_of_stored_results():
    made = {"title": "A figure", "note": "small", "repetitions": 5, "device": "cpu", "seconds": 2.5,
            "command": "python -m mbdl_course reproduce x", "threads": 1, "workers": 2,
            "versions": {"torch": "2.13.0"}}  # fmt: skip
    text = show.Recipe.computed(made, made | {"title": "Another", "seconds": 1.0}).html()
    assert "A figure: small; Another: small" in text and "reproduce x" in text and "3.5" in text
