"""What every stored chapter must have, read from the file; that it runs is nbval's part."""

import json
import re
from pathlib import Path

import pytest

from mbdl_course.__main__ import _without_images, measured

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"
FIRST = "00_start_here"
NAMES = sorted(path.stem for path in CHAPTERS.glob("*.ipynb"))
SLIDES = {"slide", "subslide", "fragment", "skip", "notes", "-"}


def cells(name, kind=None):
    """(cell, source) for each cell of a chapter, of one type if `kind` is given."""
    notebook = json.loads((CHAPTERS / f"{name}.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if kind in (None, cell["cell_type"]):
            yield cell, "".join(cell["source"])


def shown(name):
    """The HTML and markdown a reader sees: prose and stored outputs."""
    for cell, source in cells(name):
        if cell["cell_type"] == "markdown":
            yield source
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            yield from ("".join(data[k]) for k in ("text/html", "text/markdown") if k in data)


def headings(name):
    text = "\n".join(source for _, source in cells(name, "markdown"))
    return re.findall(r"^#+ +(.+)$", text, re.MULTILINE)


def slide(cell):
    return cell["metadata"].get("slideshow", {}).get("slide_type", "-")


def without_alt(text):
    """The pictures in a piece of HTML or markdown that have no alternative text."""
    for tag in re.findall(r"<img\b[^>]*>", text):
        if not re.search(r"""\balt=(["'])\s*\S.*?\1""", tag, re.DOTALL):
            yield tag[:120]
    yield from re.findall(r"!\[\s*\]\([^)]{0,80}", text)


FORBIDDEN = {  # in code cells: pattern -> what to write instead
    r"\blambda_|\blmbda\b|\blamda\b": "rho (l1 weight), lam (ADMM penalty)",
    r"(?<!\w)\w+\.T\b": ".mT",
    r"\bPhi\b": "H",
    r"\binverse\(|\.inv\(": "solve",
    r"^\s*(import|from) +(matplotlib|ipywidgets)\b": "mbdl_course.show, mbdl_course.widgets",
    r"^\s*[!%]": "plain Python",
}


def forbidden(source):
    return [
        f"{match[0].strip()}: write {instead}"
        for pattern, instead in FORBIDDEN.items()
        for match in re.finditer(pattern, source, re.MULTILINE)
    ]


MACHINE = r"(?<![\w.:/])(/(?:home|root|Users|tmp)/|[A-Za-z]:\\\\?Users)"


@pytest.mark.parametrize(
    "name",
    [
        FIRST,
        "03_sparse_recovery",
        "04_learning_to_optimize",
        "05_unrolling_in_theory",
        "06_robust_pca",
        "09_kalman",
        "10_kalmannet",
        "11_neural_augmentation",
        "13_direction_of_arrival",
        "14_mimo_detection",
        "15_channels_with_memory",
        "19_at_scale",
    ],
)
def test_is_there(name):
    assert name in NAMES


@pytest.mark.parametrize("name", NAMES)
class TestChapter:
    def test_is_stored_as_it_ran(self, name):
        assert measured(CHAPTERS / f"{name}.ipynb")["faults"] == []

    def test_first_cell_is_a_title_slide(self, name):
        cell, source = next(cells(name))
        assert cell["cell_type"] == "markdown" and source.startswith("# ")
        assert slide(cell) == "slide"

    def test_makes_a_talk(self, name):
        kinds = [slide(cell) for cell, _ in cells(name)]
        assert set(kinds) <= SLIDES and kinds.count("slide") >= 5
        # jupyterlab-slideshow shows a cell without a type, but not one whose type is "-"
        told = [cell["metadata"].get("slideshow", {}) for cell, _ in cells(name)]
        assert {"slide_type": "-"} not in told

    def test_has_its_parts(self, name):
        parts = ["What to remember"]
        if name != FIRST:
            parts += ["Notation", "Sources", "Exercises"]
        there = "\n".join(headings(name)).lower()
        assert [part for part in parts if part.lower() not in there] == []

    def test_states_its_minutes(self, name):
        opening = "\n".join(source for _, source in list(cells(name, "markdown"))[:3])
        assert re.search(r"\d+ *(min\b|minutes)", opening)

    def test_every_picture_has_a_text(self, name):
        assert [tag for text in shown(name) for tag in without_alt(text)] == []
        bare = [
            kind
            for cell, _ in cells(name, "code")
            for output in cell["outputs"]
            for kind in output.get("data", {})
            if kind.startswith("image/")
        ]
        assert bare == [], "show it with show.picture: nothing renders the alt text of a bare image"

    def test_names_no_place_on_a_machine(self, name):
        text = _without_images((CHAPTERS / f"{name}.ipynb").read_text(encoding="utf-8"))
        assert re.findall(MACHINE + ".{0,60}", text) == []

    def test_code_cells_are_short(self, name):
        assert measured(CHAPTERS / f"{name}.ipynb")["longest cell"] <= 20

    def test_speaks_the_house_notation(self, name):
        assert [x for _, source in cells(name, "code") for x in forbidden(source)] == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('<img alt="a signal" src="x">', 0),
        ('<img src="x">', 1),
        ('<img src="x" alt=" ">', 1),
        ("![ISTA's error](x.png)", 0),
        ("![](x.png)", 1),
    ],
)
def test_a_picture_without_text_is_seen(text, count):
    assert len(list(without_alt(text))) == count


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("H.mT @ x", 0),
        ("H.T @ x", 1),
        ("model.Thetas(2)", 0),
        ("lambda_ = 1", 1),
        ("lam = 1; f = lambda s: s", 0),
        ("torch.linalg.inv(H)", 1),
        ("import torch\nimport matplotlib.pyplot as plt", 1),
        ("from mbdl_course import show", 0),
        ("!pip install x", 1),
    ],
)
def test_a_forbidden_name_is_seen(source, count):
    assert len(forbidden(source)) == count


@pytest.mark.parametrize(
    ("text", "found"),
    [("/home/ada/x", 1), ("at /tmp/ipykernel_1/2.py", 1), ("https://example.org/home/a", 0)],
)
def test_a_place_on_a_machine_is_seen(text, found):
    assert len(re.findall(MACHINE, text)) == found
