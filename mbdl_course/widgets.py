"""Live labs: controls in, a pure computation, a figure that is updated in place.

One thread, the kernel's main loop, owns figure, model and widgets: whatever thread a control calls
from, its event is posted there, and only the latest state is computed. Without a running loop (a
script, a test), or with MBDL_SYNC=1 in the environment, everything happens at once in the caller.
"""

import asyncio
import hashlib
import html
import os
import time

import ipywidgets as w
import torch
from IPython.display import HTML, Javascript, display

from mbdl_course import show

_CSS = """
[data-jp-deck-mode="presenting"] .jp-RenderedHTMLCommon { font-size: 19px; line-height: 1.35; }
[data-jp-deck-mode="presenting"] .jp-RenderedHTMLCommon table { font-size: 17px; }
[data-jp-deck-mode="presenting"] .cm-editor { font-size: 17px; line-height: 1.3; }
[data-jp-deck-mode="presenting"] .jp-RenderedText pre { font-size: 17px; }
.mbdl-lab { --jp-widgets-font-size: 16px; color: var(--jp-ui-font-color1, black); }
.mbdl-lab .widget-html-content { font-size: 16px; }
.mbdl-lab .mbdl-picture { max-width: 100%; height: auto; object-fit: contain; }
.mbdl-lab [role=alert] { color: #a00000; background: #fff0f0; padding: 0 6px; font-size: 16px; }
.mbdl-lab .noUi-handle:focus-visible { outline: 3px solid #D55E00; }
"""

# ipywidgets gives slider handles no name and images no alt text; screen readers need both.
_JS = """
if (!window.mbdlLabels) {
  const name = (node, key, text) => {
    if (node && text && node.getAttribute(key) !== text) node.setAttribute(key, text);
  };
  const label = () => document.querySelectorAll('.mbdl-lab').forEach(lab => {
    const about = lab.querySelector('.mbdl-about');
    if (about) {
      lab.querySelectorAll('img.mbdl-picture').forEach(img => name(img, 'alt', about.dataset.alt));
      lab.querySelectorAll('img.mbdl-curve').forEach(img => name(img, 'alt', 'Training curve'));
      name(lab, 'role', 'group');
      name(lab, 'aria-label', about.dataset.title);
    }
    lab.querySelectorAll('.mbdl-control').forEach(box => {
      const text = (box.querySelector('.widget-label') || {}).textContent;
      const handle = box.querySelector('.noUi-handle');
      name(handle, 'aria-label', text);
      name(handle, 'aria-valuetext', (box.querySelector('.widget-readout') || {}).textContent);
      name(box.querySelector('input[type=number]'), 'aria-label', text);
    });
  });
  let asked = false;
  window.mbdlLabels = new MutationObserver(() => {
    if (!asked) { asked = true; setTimeout(() => { asked = false; label(); }, 100); }
  });
  window.mbdlLabels.observe(document.body, {childList: true, subtree: true, characterData: true});
  label();
}
"""


class Control:
    """A labelled control: `box` is shown, `value` is what the lab last accepted from it.

    A slider over numbers has a box to type into beside it; what is typed is checked in `read`.
    """

    def __init__(self, widget, typed=None):
        self.widget, self.typed = widget, typed
        self.value = self.written = widget.value
        self.message = w.HTML()
        widget.style.description_width = "initial"
        self.box = w.HBox([widget, *([typed] if typed else []), self.message])
        self.box.add_class("mbdl-control")
        if typed:
            widget.layout.width, typed.layout.width = "240px", "76px"
            self._write(widget.value)

    def watch(self, call):
        """Call `call()` after every change, except what `read` writes into the box."""
        self.widget.observe(lambda _: call(), "value")
        if self.typed:
            self.typed.observe(lambda event: event.new == self.written or call(), "value")

    def read(self):
        """Accept what was moved or typed. Raises ValueError for a typed number out of range."""
        # read once: another thread may move it meanwhile; a browser's slider gives 1.8e-15 for 0
        value = self.widget.value
        value = round(value, 9) if isinstance(value, float) else value
        if self.typed and value == self.value and self.typed.value != self.written:
            typed, low, high = self.typed.value, self.widget.min, self.widget.max
            self._write(value)
            if not low <= typed <= high:  # NaN fails this too
                raise ValueError(f"{typed:g} is outside {low:g} … {high:g}; {value:g} kept")
            value = self.widget.value = typed
        self.value = value
        if self.typed:
            self._write(value)

    def move(self, value):
        """Set it as a user would: numbers are typed. Raises ValueError if it cannot take it."""
        try:
            (self.typed or self.widget).value = value
        except Exception as error:
            raise ValueError(
                f"{self.widget.description}: cannot be set to {value!r} ({error})"
            ) from error

    def _write(self, value):
        self.written = value if isinstance(value, int) else float(f"{value:.6g}")
        self.typed.value = self.written


def number(label, low, high, value, step=0.1):
    """Slider over `low` ... `high`, with a box to type into."""
    slider = w.FloatSlider(value, min=low, max=high, step=step, description=label, readout=False)
    return Control(slider, w.FloatText(value, step=step))


def integer(label, low, high, value, step=1):
    """Slider over the integers `low` ... `high`, with a box to type into."""
    slider = w.IntSlider(value, min=low, max=high, step=step, description=label, readout=False)
    return Control(slider, w.IntText(value, step=step))


def levels(label, values, value):
    """Slider over a few given values, e.g. 10, 30, 100, 300."""
    options = [(f"{level:,}" if isinstance(level, int) else f"{level}", level) for level in values]
    slider = w.SelectionSlider(options=options, value=value, description=label)
    slider.layout.width = "320px"
    return Control(slider)


def choice(label, options, value=None):
    """Menu of `options`; the first one is chosen unless `value` says otherwise."""
    options = list(options)
    value = options[0] if value is None else value
    return Control(
        w.Dropdown(options=options, value=value, description=label, layout={"width": "auto"})
    )


def toggle(label, value=False):
    """Box to tick."""
    return Control(w.Checkbox(value, description=label, indent=False, layout={"width": "auto"}))


def device():
    """Menu of the devices torch can use here."""
    return choice("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])


class Lab:
    """A live lab: `data = compute(**values)`, then `update(data)` on the figure of `view()`.

    compute: pure function of the controls' values; with `train`, also of `trained=` (None, or the
        model so far).
    view: called once, returns (figure, update). Artists marked by `show.live` are cheap to move;
        whatever else `update` changes costs a full drawing.
    controls: {argument name: control}.
    alt: what the picture shows, in words.
    train: `train(**values)` returns an iterator of objects with step, steps, loss, validation (None
        or NMSE in dB) and model; closing it leaves the model at its best.
    go, falls: the words for beginning and for the loss, where it is no training.

    Raises ValueError for an empty alt text, and whatever the first computation raises. Later errors
    are told beside the control, kept in `error`, and raised by `check()`.
    """

    shown = {}

    def __init__(self, compute, view, controls, *, alt, train=None, title="", go="Train",
                 falls="loss"):  # fmt: skip
        show.described(alt)
        self.alt, self.title, self.controls = alt, title, controls
        self._compute, self._train, self._words = compute, train, (go, falls)
        self.trained, self.training, self.curve, self.failed = None, False, [], {}
        self._pending, self._setting, self._stopping, self._task = None, False, False, None
        self._last = next(iter(controls))
        self.loop = None
        if os.environ.get("MBDL_SYNC", "0") in ("", "0"):
            try:
                self.loop = asyncio.get_running_loop()
            except RuntimeError:  # no loop: a script or a test
                pass
        with show.house():
            self.figure, self._update = view()
        self._frame = show.Frame(self.figure)
        about = f"{title}|{alt}|{[*controls]}"  # the same from build to build
        self._key = "mbdl-" + hashlib.sha256(about.encode()).hexdigest()[:12]
        self._build()
        for name, control in controls.items():
            control.watch(lambda name=name: self._changed(name))
        self._show()

    @property
    def values(self):
        """The controls' values: what the next computation gets."""
        return {name: control.value for name, control in self.controls.items()}

    @property
    def png(self):
        """The picture shown, as PNG bytes."""
        return self._image.value

    @property
    def error(self):
        """The error told now, or None."""
        return next(iter(self.failed.values()), None)

    def check(self):
        """Raise the error told now, if there is one: the last line of a chapter."""
        if self.error:
            raise self.error

    def set(self, **values):
        """Move controls as a user would, and show the result before returning."""
        for name in values:
            if name not in self.controls:
                raise ValueError(f"{name}: expected one of {', '.join(self.controls)}")
        self._setting = True
        try:
            for name, value in values.items():
                self.controls[name].move(value)
        finally:
            self._setting = False
            self._refresh()

    def train(self):
        """Start training from the beginning; without a running loop, train to the end."""
        if self.training or not self._train:
            return
        self.training, self._stopping, self.curve, self.trained = True, False, [], None
        self._tell("train", None)
        self._buttons()
        follow = self._follow()
        if self.loop:
            self._task = self.loop.create_task(self._drive(follow))
        else:
            for _ in follow:
                pass

    def stop(self):
        """Stop training after the step at hand; the model is left at its best."""
        self._stopping = True

    def close(self):
        """Stop training and free the widgets."""
        self.stop()
        self._pending, self._setting = None, True
        todo = [self.box]
        while todo:
            widget = todo.pop()
            todo += getattr(widget, "children", ())
            widget.close()

    # -- events

    def _later(self, call):
        if self.loop:
            self.loop.call_soon_threadsafe(call)
        else:
            call()

    def _changed(self, name):
        self._pending = name
        if not self._setting:
            self._later(
                self._refresh
            )  # the first of a burst reads the latest; the others find None

    def _refresh(self):
        name, self._pending = self._pending, None
        if name is not None:
            self._last = name
            self._redraw()

    def _redraw(self):
        told = {}
        for name, control in self.controls.items():
            try:
                control.read()
            except ValueError as error:
                told[name] = error
        try:
            self._show()
        except Exception as error:
            told[self._last] = error
        for name in self.controls:
            self._tell(name, told.get(name))

    def _show(self):
        trained = {"trained": self.trained} if self._train else {}
        data = self._compute(**self.values, **trained)
        with show.house():
            self._update(data)
            self._image.value = self._frame.png()
        self.data = data

    def _tell(self, name, error):
        """Show `error` in one line beside control `name`, or clear what was shown there."""
        if error is None:
            self.failed.pop(name, None)
            text = ""
        else:
            self.failed[name] = error
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            text = f'<span role="alert">{html.escape(line)}</span>'
        (self._alert if name == "train" else self.controls[name].message).value = text

    # -- training

    def _follow(self):
        """Take the training's steps and tell of them; yields after each, so that others can run."""
        start = time.perf_counter()
        due = {self._status: start, self._draw_curve: start, self._redraw: start + 1}
        pause = {self._status: 0.15, self._draw_curve: 0.15, self._redraw: 1.0}
        steps, point = None, None
        try:
            steps = iter(self._train(**self.values))
            for point in steps:
                self.trained = point.model
                validation = None if point.validation is None else float(point.validation)
                self.curve.append((point.step, float(point.loss), validation))
                for tell, when in due.items() if self.loop else ():
                    before = time.perf_counter()
                    if before >= when:
                        tell(*(() if tell == self._redraw else (point, before - start)))
                        now = time.perf_counter()
                        due[tell] = now + max(
                            pause[tell], 4 * (now - before)
                        )  # at most 20 % of the time
                yield
                if self._stopping:
                    break
        except Exception as error:
            self._tell("train", error)
        finally:
            if hasattr(steps, "close"):
                steps.close()
            self.training = False
            self._finish(point, time.perf_counter() - start)

    async def _drive(self, follow):
        for _ in follow:
            await asyncio.sleep(0)

    def _finish(self, point, seconds):
        self._buttons()
        if point is not None:
            self._status(point, seconds, "stopped" if self._stopping else "done")
            self._draw_curve(point, seconds)
        self._redraw()

    def _status(self, point, seconds, verb="step"):
        self._progress.max, self._progress.value = point.steps, point.step
        validation = self.curve[-1][2]
        nmse = "" if validation is None else f" · validation {validation:.1f} dB".replace("-", "−")
        loss = f"{self._words[1]} {float(point.loss):.3g}"
        self._label.value = (
            f'<span role="{"status" if verb != "step" else "presentation"}">{verb} {point.step} of '
            f"{point.steps} · {loss}{nmse} · {seconds:.1f} s</span>"
        )

    def _draw_curve(self, point, seconds):
        self._curve_image.value = self._curve.png(self.curve, point.steps)

    def _buttons(self):
        self._go.disabled, self._halt.disabled = self.training, not self.training

    # -- what is shown

    def _build(self):
        static = f".{self._key}, .jp-OutputArea-child:has(.{self._key})"  # live, it would be a twin
        about = w.HTML(
            f"<style>{_CSS} {static} {{ display: none }}</style><b>{html.escape(self.title)}</b>"
            f'<span class="mbdl-about" data-alt="{html.escape(self.alt)}" '
            f'data-title="{html.escape(self.title or "live lab")}" data-key="{self._key}"></span>'
        )
        width, height = self.figure.canvas.get_width_height()
        self._image = w.Image(format="png", layout=w.Layout(width=f"{width}px"))
        self._image.add_class("mbdl-picture")
        row = w.Layout(flex_flow="row wrap", grid_gap="0 18px")
        top = w.HBox([control.box for control in self.controls.values()], layout=row)
        if self._train:
            go, falls = self._words
            self._curve = show.Curve(falls)
            self._go, self._halt = w.Button(description=go), w.Button(description="Stop")
            self._go.on_click(lambda _: self._later(self.train))
            self._halt.on_click(lambda _: self._later(self.stop))
            self._buttons()
            self._progress, self._label, self._alert = (
                w.IntProgress(0, layout={"width": "160px"}),
                w.HTML(),
                w.HTML(),
            )
            self._curve_image = w.Image(format="png", value=self._curve.png([], 1))
            self._curve_image.add_class("mbdl-curve")
            parts = [self._go, self._halt, self._progress, self._label, self._alert]
            left = w.VBox([top, w.HBox(parts, layout=row)], layout=w.Layout(flex="1 1 0"))
            top = w.HBox([left, self._curve_image])
        self.box = w.VBox([about, top, self._image])
        self.box.add_class("mbdl-lab")

    def _ipython_display_(self):
        old = Lab.shown.get(self._key)
        if old is not None and old is not self:  # the cell was run again
            old.close()
        Lab.shown[self._key] = self
        display(self.box)
        display(Javascript(_JS))
        display(
            HTML(
                show._figure(
                    self._frame.small(), self.alt, "Run the cell to move it.", css=self._key
                )
            )
        )


lab = Lab  # reads better where one is made: lab(compute, view, {...}, alt="...")
