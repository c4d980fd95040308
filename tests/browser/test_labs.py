"""Labs in a real JupyterLab and a real Chromium: run, move, train, stop, present."""

import random
import re

import nbformat
import pytest
from driver import ROOT

pytestmark = pytest.mark.browser

LAB = """
import hashlib
from types import SimpleNamespace

import psutil
import torch

from mbdl_course import show, widgets

torch.set_num_threads(1)
rng = torch.Generator().manual_seed(0)
H = torch.randn(100, 200, generator=rng) / 10
s = torch.randn(200, 1, generator=rng) * (torch.rand(200, 1, generator=rng) < 0.1)
w = torch.randn(100, 1, generator=rng)
mu = 1 / torch.linalg.matrix_norm(H, 2) ** 2


def compute(rho, snr_db, depth, n_train, trained):
    if depth == 1:
        raise ValueError("one iteration is no iteration")
    x = H @ s + w * (H @ s).norm() / w.norm() * 10 ** (-snr_db / 20)
    s_hat, errors = torch.zeros_like(s), []
    for _ in range(depth):
        z = s_hat - mu * (H.mT @ (H @ s_hat - x))
        s_hat = z.sign() * (z.abs() - mu * rho).clamp(min=0)
        errors.append(10 * ((s_hat - s).square().sum() / s.square().sum()).log10().item())
    return s_hat.flatten() + (trained["offset"] if trained else 0), errors


def view():
    figure, (left, right) = show.panels(2, ["signal", "error"])
    left.plot(s.flatten(), **show.style("truth", linestyle="", markersize=4), label="truth")
    signal = show.live(left.plot(s.flatten(), **show.style("model-based", marker=""))[0])
    error = show.live(right.plot([], [], **show.style("model-based", marker=""))[0])
    left.set(xlabel="index", ylim=(-3, 3))
    right.set(xlabel="iteration", ylabel="NMSE [dB]", xlim=(0, 200), ylim=(-30, 5))

    def update(data):
        signal.set_ydata(data[0])
        error.set_data(range(1, 1 + len(data[1])), data[1])

    return figure, update


def train(rho, snr_db, depth, n_train):
    model, a = {"offset": 0.0}, torch.randn(300, 300)
    for step in range(1, 5001):
        for _ in range(6):
            a = torch.tanh(a @ a / 17)
        model["offset"] = step / 5000
        validation = -step / 200
        yield SimpleNamespace(
            step=step, steps=5000, loss=1 / step, validation=validation, model=model
        )


def make():
    controls = {
        "rho": widgets.number("ℓ1 weight ρ", 0, 1, 0.1, 0.01),
        "snr_db": widgets.number("SNR [dB]", 0, 40, 20, 1),
        "depth": widgets.integer("iterations", 1, 200, 100),
        "n_train": widgets.levels("training signals", [10, 30, 100, 300], 100),
    }
    alt = "Left: a sparse signal and its estimate. Right: error over iterations."
    return widgets.lab(compute, view, controls, alt=alt, train=train, title="ISTA")


def again():
    new = make()
    new.trained = lab.trained
    new.set(**lab.values)
    return list(hashlib.sha256(new.png).digest())


def memory():
    return psutil.Process().memory_info().rss // 2**20


lab = make()
lab
""".strip()


def plain(server):
    """A notebook of its own, so that the engine is tested whatever the chapters do with it."""
    cell = nbformat.v4.new_code_cell(LAB, metadata={"slideshow": {"slide_type": "slide"}})
    cell.metadata["jupyter"] = {"source_hidden": True}
    title = {"slideshow": {"slide_type": "slide"}}
    cells = [nbformat.v4.new_markdown_cell("# A lab", metadata=title), cell]
    cells += [nbformat.v4.new_markdown_cell("the end", metadata=title)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(book, server[2] / "plain.ipynb")
    return "plain.ipynb"


def chapters():
    """The chapters that make labs."""
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        code = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        if re.search(r"\blab\(|widgets\.", "\n".join(code)):
            yield path.name


def named(book, lab):
    """Sliders have names, pictures alt text, and the static twin is out of sight."""
    handles = lab.get_by_role("slider")
    book.page.wait_for_function(
        "document.querySelectorAll('.mbdl-lab .noUi-handle:not([aria-label])').length === 0"
    )
    assert all(handle.get_attribute("aria-label").strip() for handle in handles.all())
    assert lab.locator("img.mbdl-picture").get_attribute("alt").strip()
    key = lab.locator(".mbdl-about").get_attribute("data-key")
    assert book.page.locator(f"figure.{key}").count()
    assert not any(twin.is_visible() for twin in book.page.locator(f"figure.{key}").all())


def moves(book, lab):
    """The slider that moves the picture by keyboard, and by mouse; None if there is none."""
    for handle in lab.get_by_role("slider").all():
        if any(book.changes(lab, lambda k=k, h=handle: book.press(h, k), seconds=3) for k in
               ("Home", "End")):  # fmt: skip
            assert book.changes(lab, lambda h=handle: book.drag(h, 0.45))
            return handle


GO = re.compile("^(Train|Run)$")


def trains(book, lab):
    """Train, or Run, moves the curve, Stop stops."""
    assert book.changes(lab, lab.get_by_role("button", name=GO).click, "curve")
    for _ in range(3):  # a curve that moves
        book.changes(lab, lambda: None, "curve", seconds=2)
    stop = lab.get_by_role("button", name="Stop")
    if stop.is_enabled():  # a short training may be done by now
        stop.click()
    lab.locator("[role=status]").wait_for()
    book.settled(lab)


def fits(book, lab):
    """The whole lab is on the slide, without scrolling."""
    lab.scroll_into_view_if_needed()
    box = lab.bounding_box()
    assert box["height"] <= 720 and box["x"] >= 0 and box["x"] + box["width"] <= 1280
    for label in lab.locator(".widget-label").all():
        assert label.evaluate("node => node.scrollWidth <= node.clientWidth + 1")


def to_slide(book, lab):
    """Go forward from the first slide to the one that shows the lab."""
    for _ in range(100):
        if lab.is_visible():
            return
        assert book.forward(), 'no slide shows the lab (slide type "-"? leave it out instead)'
        book.page.wait_for_timeout(200)


def test_engine(notebook, server):
    book = notebook(plain(server))
    book.run_all()
    lab = book.labs().first
    named(book, lab)
    assert moves(book, lab)
    box = lab.locator(".mbdl-control input[type=number]").nth(1)
    before = book.settled(lab)
    box.fill("99")
    book.page.keyboard.press("Enter")
    lab.get_by_role("alert").filter(has_text="99 is outside 0 … 40").wait_for()
    handle = lab.get_by_role("slider", name="iterations")
    book.press(handle, "Home")  # one iteration: the computation fails
    lab.get_by_role("alert").filter(has_text="one iteration is no iteration").wait_for()
    assert book.picture(lab) == before
    book.shot("engine-error")
    assert book.changes(lab, lambda: book.press(handle, "End"))
    assert lab.get_by_role("alert").count() == 0
    trains(book, lab)
    book.shot("engine-trained")
    assert not book.errors() and not book.outside


def test_storm(notebook, server):
    book = notebook(plain(server))
    book.run_all()
    lab = book.labs().first
    draw = random.Random(1)
    keys = ["Home", "End", "ArrowLeft", "ArrowRight", "PageUp", "PageDown"]
    lab.get_by_role("button", name="Train").click()
    handles = lab.get_by_role("slider").all()

    def storm(count):
        for _ in range(count):
            book.press(draw.choice(handles), draw.choice(keys), draw.randrange(1, 10))

    storm(20)
    before = int(book.kernel("memory()"))
    storm(60)
    book.press(lab.get_by_role("slider", name="iterations"), "End")
    lab.get_by_role("button", name="Stop").click()
    lab.locator("[role=status]").wait_for()
    book.idle()
    expected = re.sub(r"\s", "", book.kernel("again()")).strip("[]")
    assert book.settled(lab) == expected
    assert int(book.kernel("memory()")) - before < 20 + 5  # 5 for the second lab
    assert not book.errors()


def test_slides(notebook, server):
    book = notebook(plain(server))
    book.run_all()
    lab = book.labs().first
    book.present()
    to_slide(book, lab)
    book.shot("engine-slide")
    fits(book, lab)
    assert moves(book, lab)
    assert lab.is_visible()  # the arrow keys moved the slider and not the slides
    trains(book, lab)
    book.shot("engine-slide-trained")
    fits(book, lab)
    assert not book.errors()


@pytest.mark.parametrize("name", list(chapters()))
def test_chapter(name, notebook):
    book = notebook(name)
    book.run_all()
    labs = book.labs().all()
    for number, lab in enumerate(labs):
        book.look(lab)
        named(book, lab)
        assert moves(book, lab), f"no slider moves the picture of lab {number}"
        if lab.get_by_role("button", name=GO).count():
            trains(book, lab)
        book.shot(f"{name[:2]}-lab-{number}")
    assert not book.errors() and not book.outside
    book.present()
    for number, lab in enumerate(labs):
        to_slide(book, lab)
        fits(book, lab)
        book.shot(f"{name[:2]}-slide-{number}")
    assert moves(book, labs[-1])
    assert not book.errors()
