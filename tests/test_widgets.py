"""The lab engine: values, errors, events, training, memory; without a browser."""

import asyncio
import json
import random
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mbdl_course import show, widgets

ALT = "A damped wave, and its energy over time."


class Trainer:
    """A training whose generator tells how it was left: steps of about `pause` seconds."""

    def __init__(self, steps=20, pause=0.0, fails_at=None):
        self.steps, self.pause, self.fails_at = steps, pause, fails_at
        self.runs, self.closed = 0, 0

    def __call__(self, gain, delay, n_train, damped):
        self.runs += 1
        model = {"a": 0.0}
        try:
            for step in range(1, self.steps + 1):
                if step == self.fails_at:
                    raise RuntimeError("loss is not finite\nsecond line")
                time.sleep(self.pause)
                model["a"] = step / self.steps
                yield SimpleNamespace(
                    step=step, steps=self.steps, loss=1 / step, validation=-step / 2, model=model
                )
        finally:
            self.closed += 1
            model["best"] = True


def make(train=None, log=None):
    """A two-panel lab that fails for a gain of exactly 5; `log` collects what was computed."""
    t = np.linspace(0, 1, 200)

    def compute(gain, delay, n_train, damped, trained=None):
        if log is not None:
            log.append((gain, delay, n_train, damped))
        if gain == 5:
            raise ZeroDivisionError("gain 5 <is> singular")
        wave = gain * np.sin(20 * t + delay) * (np.exp(-3 * t) if damped else 1)
        return wave + (0.1 * trained["a"] if trained else 0), np.cumsum(wave**2) * n_train / 1000

    def view():
        figure, (left, right) = show.panels(2, ["wave", "energy"])
        wave = show.live(left.plot(t, t, **show.style("truth", marker=""))[0])
        energy = show.live(right.plot(t, t, **show.style("unfolded", marker=""))[0])
        left.set_ylim(-10, 10)
        right.set_ylim(0, 100)

        def update(data):
            wave.set_ydata(data[0])
            energy.set_ydata(data[1])
            left.set_title(f"wave, peak {np.abs(data[0]).max():.0f}")

        return figure, update

    controls = {
        "gain": widgets.number("gain", 0, 10, 1, 0.5),
        "delay": widgets.integer("delay", 0, 30, 3),
        "n_train": widgets.levels("signals", [10, 30, 100], 30),
        "damped": widgets.toggle("damped", True),
    }
    return widgets.Lab(compute, view, controls, alt=ALT, train=train, title="Wave")


@pytest.fixture
def live(monkeypatch):
    monkeypatch.delenv("MBDL_SYNC", raising=False)


def events(lab, count, seed):
    """`count` random control events over the whole ranges, as (widget, value)."""
    draw = random.Random(seed)
    for _ in range(count):
        name = draw.choice([*lab.controls])
        widget = lab.controls[name].widget
        if name == "gain":
            yield widget, draw.randrange(21) / 2  # 5.0, which fails, among them
        elif name == "delay":
            yield widget, draw.randrange(31)
        else:
            yield widget, draw.choice([10, 30, 100] if name == "n_train" else [True, False])


def fresh(lab):
    """The picture that a new lab shows for the state of this one."""
    again = make()
    again.set(**lab.values)
    return again.png


def resident():
    return __import__("psutil").Process().memory_info().rss / 2**20


async def until(true, seconds=30):
    end = time.perf_counter() + seconds
    while not true():
        assert time.perf_counter() < end
        await asyncio.sleep(0.005)


def test_controls_move_the_picture():
    lab = make()
    before = lab.png
    lab.set(gain=2.5, n_train=100)
    assert lab.values == {"gain": 2.5, "delay": 3, "n_train": 100, "damped": True}
    assert lab.png != before and lab.png == fresh(lab)
    lab.controls["delay"].widget.value = 9  # as the front end does
    assert lab.values["delay"] == 9 and lab.controls["delay"].typed.value == 9
    lab.controls["delay"].typed.value = 11  # typed into the box
    assert lab.values["delay"] == lab.controls["delay"].widget.value == 11
    assert lab.png == fresh(lab)
    lab.set(gain=1, delay=3, n_train=30)
    assert lab.png == before


@pytest.mark.parametrize("value", [99, -1, float("nan"), float("inf")])
def test_out_of_range_is_told_beside_the_control(value):
    lab = make()
    picture = lab.png
    lab.set(gain=value)
    assert 'role="alert"' in lab.controls["gain"].message.value
    assert "outside 0 … 10" in str(lab.error) and lab.png == picture
    assert lab.values["gain"] == lab.controls["gain"].typed.value == 1
    with pytest.raises(ValueError, match="outside"):
        lab.check()
    lab.set(gain=2)
    lab.check()
    assert lab.controls["gain"].message.value == "" and lab.png != picture


def test_failing_computation_keeps_the_last_picture():
    lab = make()
    picture, data = lab.png, lab.data
    lab.set(gain=5)
    message = lab.controls["gain"].message.value
    assert "gain 5 &lt;is&gt; singular" in message and "Traceback" not in message
    assert lab.png == picture and lab.data is data
    with pytest.raises(ZeroDivisionError):
        lab.check()
    lab.set(gain=6)
    assert lab.error is None and lab.png == fresh(lab)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"nope": 1}, "nope: expected one of gain, delay"),
        ({"n_train": 31}, "signals: cannot be set to 31"),
        ({"gain": "much"}, "gain: cannot be set to 'much'"),
    ],
)
def test_set_refuses_what_no_user_could_do(values, message):
    lab = make()
    with pytest.raises(ValueError, match=message):
        lab.set(delay=7, **values)
    lab.controls["delay"].widget.value = 8
    assert lab.values["delay"] == 8 and lab.png == fresh(lab)


def test_first_computation_and_alt_fail_loudly():
    view = lambda: (show.panels(1)[0], print)  # noqa: E731
    controls = {"a": widgets.number("a", 0, 1, 0)}
    with pytest.raises(ZeroDivisionError):
        widgets.lab(lambda a: 1 / a, view, controls, alt="x")
    with pytest.raises(ValueError, match="alt"):
        widgets.lab(lambda a: 1, view, controls, alt=" ")


def test_display_leaves_a_static_picture(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "display", shown.append)
    lab = make(Trainer())
    lab._ipython_display_()
    box, script, static = shown
    assert box is lab.box and "aria-label" in script.data
    assert f'class="mbdl-figure {lab._key}"' in static.data and f'alt="{ALT}"' in static.data
    assert f".{lab._key}" in lab.box.children[0].value and "run the cell" in static.data.lower()
    assert len(static.data) < 100_000
    again = make(Trainer())
    assert again._key == lab._key  # the stored notebook does not change from build to build
    again._ipython_display_()
    assert lab.box.comm is None and again.box.comm is not None  # run again: the old one is closed


def test_training_at_once_without_a_loop():
    train = Trainer()
    lab = make(train)
    before = lab.png
    lab.train()
    assert not lab.training and len(lab.curve) == 20 and lab.curve[-1] == (20, 0.05, -10.0)
    assert lab.trained == {"a": 1.0, "best": True} and train.closed == 1
    assert lab.png != before and "done 20 of 20" in lab._label.value
    lab.train()
    assert train.runs == 2 and len(lab.curve) == 20
    lab.check()


def test_failing_training_is_told_and_kept():
    train = Trainer(fails_at=7)
    lab = make(train)
    lab.train()
    assert len(lab.curve) == 6 and train.closed == 1 and not lab.training and not lab._go.disabled
    assert "loss is not finite" in lab._alert.value and "second" not in lab._alert.value
    lab.set(gain=3)
    with pytest.raises(RuntimeError, match="finite"):
        lab.check()
    train.fails_at = None
    lab.train()
    lab.check()


def test_sync_mode_beats_a_running_loop(monkeypatch):
    monkeypatch.setenv("MBDL_SYNC", "1")

    async def main():
        lab = make(Trainer())
        lab.train()
        assert not lab.training and len(lab.curve) == 20

    asyncio.run(main())


def test_superseded_events_are_dropped(live):
    async def main():
        log = []
        lab = make(log=log)
        log.clear()
        thread = threading.Thread(
            target=lambda: [setattr(lab.controls["delay"].widget, "value", v) for v in range(30)]
        )
        thread.start()
        thread.join()  # the loop was busy meanwhile
        await until(lambda: lab.values["delay"] == 29)
        await asyncio.sleep(0.05)
        assert len(log) == 1 and lab.png == fresh(lab)

    asyncio.run(main())


def test_sliders_answer_and_stop_stops_while_training(live):
    async def main():
        train = Trainer(steps=10_000, pause=0.01)
        lab = make(train)
        start = time.perf_counter()
        lab._go.click()
        await until(lambda: len(lab.curve) >= 1)
        assert time.perf_counter() - start < 1
        assert lab.training and lab._go.disabled and not lab._halt.disabled
        lab.train()  # already running: nothing happens
        before = lab.png
        lab.controls["delay"].widget.value = 20
        await until(lambda: lab.values["delay"] == 20 and lab.png != before, 1)
        await until(lambda: lab._progress.value > 5)
        lab.controls["gain"].widget.value = 5.0  # a failing picture does not end the training
        await until(lambda: lab.error)
        steps = len(lab.curve)
        await until(lambda: len(lab.curve) > steps + 120)  # beyond the next picture of the model
        assert lab.training
        lab.controls["gain"].widget.value = 4.0
        await until(lambda: not lab.error)
        start = time.perf_counter()
        lab._halt.click()
        await until(lambda: not lab.training)
        assert time.perf_counter() - start < 0.3
        assert train.closed == 1 and lab.trained["best"] and "stopped" in lab._label.value
        steps = len(lab.curve)
        await asyncio.sleep(0.1)
        assert len(lab.curve) == steps and train.runs == 1
        train.steps = 5
        lab.train()
        await until(lambda: not lab.training)
        assert train.runs == 2 and len(lab.curve) == 5
        lab.check()

    asyncio.run(main())


@pytest.mark.parametrize("training", [False, True])
def test_storm(live, training, capfd):
    async def main():
        lab = make(Trainer(steps=10**6, pause=0.001))
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
        if training:
            lab.train()
        grown = []
        for seed in range(3):  # the first storm fills caches

            def storm(seed=seed):
                for widget, value in events(lab, 1000, seed):
                    widget.value = value
                    time.sleep(0.001)

            thread = threading.Thread(target=storm)
            thread.start()
            await until(lambda thread=thread: not thread.is_alive(), 60)
            grown.append(resident())
        lab.stop()
        await until(lambda: not lab.training)
        lab.set(gain=3)
        lab.trained = None
        lab._redraw()
        lab.check()
        assert lab.png == fresh(lab)
        assert grown[-1] - grown[0] < 20
        assert not complaints

    asyncio.run(main())
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err


def test_curve_is_drawn_for_any_numbers():
    curve = show.Curve()
    empty = curve.png([], 10)
    strange = [
        (1, float("inf"), None),
        (2, float("nan"), float("nan")),
        (3, 0.0, None),
        (4, 1e-3, -40.0),
    ]
    assert curve.png(strange, 10) != empty
    assert curve.png([(k, 1 / k, None) for k in range(1, 5000)], 5000) != empty


def test_every_control_has_a_name_and_plain_values():
    for control in make().controls.values():
        assert control.widget.description
        json.dumps(control.value)
    assert widgets.device().value == "cpu"
    assert widgets.choice("method", ["ISTA", "FISTA"]).value == "ISTA"


def test_what_a_browser_rounds_badly_is_read_as_meant():
    control = widgets.number("clutter", -20.0, 20.0, 5.0, 1.0)
    control.widget.value = 1.7763568394002505e-15  # the slider's own idea of zero
    assert control.read() is None and control.value == 0.0 and control.typed.value == 0.0
