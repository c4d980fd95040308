"""A real JupyterLab and a real Chromium, driven by Playwright: for the tests and the benchmark."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
).split()
WAIT = 120  # seconds; a busy machine is slow, and what passes does not wait


@contextlib.contextmanager
def chromium():
    """A quiet headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@contextlib.contextmanager
def jupyterlab(home):
    """JupyterLab on `home`/chapters, with settings of its own in `home`: (url, token, folder)."""
    folder = home / "chapters"
    folder.mkdir(exist_ok=True)
    folders = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    folders |= {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime"}
    folders |= {"JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython", "MPLCONFIGDIR": "matplotlib"}
    environment = {name: value for name, value in os.environ.items() if name != "MBDL_SYNC"}
    environment |= {name: str(home / place) for name, place in folders.items()}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    news = home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    token = hashlib.sha256(os.urandom(16)).hexdigest()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
    command += ["--port=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.quit_button=False"]
    with open(home / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=home)
    try:
        for _ in range(10 * WAIT):
            started = list((home / "runtime").glob("jpserver-*.json"))
            if started or process.poll() is not None:
                break
            time.sleep(0.1)
        if not started:
            raise RuntimeError(f"JupyterLab did not start:\n{(home / 'log').read_text()[-2000:]}")
        yield json.loads(started[0].read_text())["url"], token, folder
    finally:
        process.terminate()
        process.wait(30)


class Notebook:
    """One notebook in single-document mode; `page` is Playwright's."""

    def __init__(self, page, url):
        self.page = page
        self.outside = []  # addresses asked for beyond this machine; a lab needs none
        page.on("request", lambda request: self._note(request.url))
        page.set_default_timeout(1000 * WAIT)
        page.goto(url)
        page.wait_for_function(
            "window.jupyterapp && jupyterapp.shell.currentWidget && "
            "jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'"
        )

    def _note(self, url):
        if not url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:")):
            self.outside.append(url)

    def run_all(self):
        """Run all cells; wait until the last one is done and the first lab's picture is there."""
        self.command("notebook:run-all-cells")
        self.idle()
        self.page.wait_for_selector("img.mbdl-picture", state="attached")
        self.look(self.labs().first)
        self.page.wait_for_function("document.querySelector('img.mbdl-picture').naturalWidth > 0")

    def command(self, name):
        self.page.evaluate("name => jupyterapp.commands.execute(name)", name)

    def idle(self):
        self.page.wait_for_function(
            "jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
        )

    def errors(self):
        """Texts of all error outputs, stderr, and messages of labs that are on the page."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll(
                '[data-mime-type="application/vnd.jupyter.stderr"],'
                + '[data-mime-type="application/vnd.jupyter.error"], .mbdl-lab [role=alert]')]
            .map(node => node.textContent).filter(text => text.trim())"""
        )

    def labs(self):
        return self.page.locator(".mbdl-lab")

    def look(self, lab):
        """Scroll to a lab: the Lab hides cells far from the window, so it is asked for the cell."""
        lab.evaluate(
            """async node => {
                const cells = jupyterapp.shell.currentWidget.content;
                const index = cells.widgets.findIndex(cell => cell.node.contains(node));
                if (index >= 0) {
                    cells.activeCellIndex = index;
                    await cells.scrollToItem(index, 'start');
                }
                node.scrollIntoView({block: 'center'});
            }"""
        )
        lab.wait_for()

    def kernel(self, code):
        """The text/plain result of an expression in the kernel, silently."""
        return self.page.evaluate(
            """async code => {
                const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                const reply = await kernel.requestExecute(
                    {code: '', silent: true, user_expressions: {it: code}}).done;
                const it = reply.content.user_expressions.it;
                return it.status === 'ok' ? it.data['text/plain'] : it.ename + ': ' + it.evalue;
            }""",
            code,
        )

    def picture(self, lab, kind="picture"):
        """A digest of the bytes of the image that the lab shows."""
        return lab.locator(f"img.mbdl-{kind}").evaluate(
            """async img => {
                const bytes = await (await fetch(img.src)).arrayBuffer();
                const digest = await crypto.subtle.digest('SHA-256', bytes);
                return [...new Uint8Array(digest)].join();
            }"""
        )

    def changes(self, lab, action, kind="picture", seconds=WAIT):
        """Do `action()`; wait until the image shows other bytes. False if it has not in time."""
        before = self.picture(lab, kind)
        action()
        end = time.monotonic() + seconds
        while self.picture(lab, kind) == before:
            if time.monotonic() > end:
                return False
            self.page.wait_for_timeout(20)
        return True

    def settled(self, lab):
        """The picture's digest once it has stopped changing."""
        while self.changes(lab, lambda: None, seconds=0.5):
            pass
        return self.picture(lab)

    def present(self):
        """Start the slides from the first cell.

        By the command behind the toolbar's button, and once more if nothing shows: what a window
        closed before left on makes the first start do nothing.
        """
        self.page.evaluate(
            """() => {
                const panel = jupyterapp.shell.currentWidget;
                panel.content.activeCellIndex = 0;
                panel.content.scrollToItem(0);
                jupyterapp.shell.activateById(panel.id);
            }"""
        )
        for _ in range(4):
            self.command("deck:start")
            for _ in range(200):
                if self.page.locator(".jp-Deck-Remote").count():
                    return
                self.page.wait_for_timeout(100)
            self.command("deck:stop")
            self.page.wait_for_timeout(1000)
        raise RuntimeError("the slides do not start")

    def forward(self):
        """Go to the next slide, the one below first. False at the end."""
        for way in ("down", "forward"):
            button = self.page.locator(f".jp-deck-mod-direction-{way}:not(.jp-mod-disabled)")
            if button.count():
                button.click()
                return True
        return False

    def press(self, handle, key, times=1):
        handle.focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def drag(self, handle, to):
        """Drag a slider's handle with the mouse to the fraction `to` of its track."""
        handle.scroll_into_view_if_needed()
        track = handle.locator("xpath=ancestor::*[contains(@class,'noUi-target')]").bounding_box()
        start = handle.bounding_box()
        self.page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
        self.page.mouse.down()
        y = track["y"] + track["height"] / 2
        self.page.mouse.move(track["x"] + to * track["width"], y, steps=15)
        self.page.mouse.up()

    def shot(self, name):
        """Save a screenshot where MBDL_SHOTS says, for a person to look at."""
        if folder := os.environ.get("MBDL_SHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png")
