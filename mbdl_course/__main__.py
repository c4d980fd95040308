"""python -m mbdl_course doctor | build | report | weights | reproduce: it looks after itself."""

import argparse
import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ROOT / "chapters"
CHAPTER_SECONDS, CHAPTER_MB, CLONE_MB = 90, 1.5, 60
CELL_SECONDS = 120
LIVE = ("application/vnd.jupyter.widget-view+json", "application/javascript")

# ---- doctor: each check yields (status, what, message); only FAIL stops the course ----


def doctor():
    """Print what would bite; return 0 only if the course will run."""
    failures = 0
    for check in (_python, _torch, _packages, _frontend, _weights, _data, _cache, _machine):
        try:
            lines = list(check())
        except Exception as error:  # whatever is broken is a line of the table, never a traceback
            lines = [("FAIL", check.__name__.strip("_"), f"{type(error).__name__}: {error}")]
        for status, what, message in lines:
            failures += status == "FAIL"
            print(f"{status:4}  {what:20}  {message}")
    print(f"\nThe course will not run: {failures} FAIL." if failures else "\nThe course will run.")
    return int(failures > 0)


def _pip(extra=""):
    return f'python -m pip install -c constraints.txt -e ".{extra}" (in {ROOT})'


def _python():
    fits = (3, 11) <= sys.version_info < (3, 14)
    yield "ok" if fits else "FAIL", "python", f"{platform.python_version()} (3.11 to 3.13)"


def _torch():
    import torch

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA in this build"
    yield "ok", "torch", f"{torch.__version__}, {cuda}"
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield "ok", "devices", ", ".join(["cpu", *devices])
    advice = "" if torch.get_num_threads() == 1 else "; small tensors: torch.set_num_threads(1)"
    yield "ok", "threads", f"{torch.get_num_threads()} of {os.cpu_count()} CPUs{advice}"


def _packages():
    """Core and [lab] must be there in the stated range; the other extras are told."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"core": project["dependencies"]} | project["optional-dependencies"]
    for group, requirements in groups.items():
        faults = [fault for fault in map(_fault, map(Requirement, requirements)) if fault]
        if faults:
            cure = _pip("" if group == "core" else f"[{group}]")
            status = "FAIL" if group in ("core", "lab") else "warn"
            yield status, f"packages: {group}", f"{'; '.join(faults)}. Cure: {cure}"
        else:
            yield "ok", f"packages: {group}", ", ".join(_name(text) for text in requirements)


def _name(requirement):
    name = re.match(r"[\w.-]+", requirement)[0]
    return f"{name} {metadata.version(name)}"


def _fault(requirement):
    """What is wrong with an installed package, in a few words; None where nothing is."""
    modules = {"PyWavelets": "pywt", "scikit-learn": "sklearn", "pytest-xdist": "xdist",
               "jupyterlab-slideshow": None}  # fmt: skip
    module = modules.get(requirement.name, requirement.name.replace("-", "_"))
    try:
        found = metadata.version(requirement.name)
        if module:
            importlib.import_module(module)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} missing"
    except Exception as error:
        return f"{requirement.name} {found} does not load ({type(error).__name__}: {error})"
    fits = requirement.specifier.contains(found, prereleases=True)
    return None if fits else f"{requirement.name} {found}, expected {requirement.specifier}"


def _frontend():
    """The Lab's extensions are files beside its own; a disabled one is as good as missing."""
    from jupyter_core.paths import jupyter_path
    from jupyterlab_server.config import get_page_config

    folders = jupyter_path("labextensions")
    disabled = get_page_config(folders).get("disabledExtensions", [])
    for what, name, status in (
        ("widgets", "@jupyter-widgets/jupyterlab-manager", "FAIL"),
        ("slideshow", "jupyterlab-slideshow", "warn"),
    ):
        present = any((Path(folder) / name / "package.json").exists() for folder in folders)
        if present and name not in disabled:
            yield "ok", what, f"{name} enabled"
        else:
            cure = f"jupyter labextension enable {name}" if present else _pip("[lab]")
            yield status, what, f"{name} {'disabled' if present else 'missing'}: {cure}"
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    path = next(filter(None, found), "none: only the browser tests need it")
    yield "ok", "chromium", path


def _weights():
    from mbdl_course.learn import verify_weights

    files = verify_weights()
    bad = [("FAIL", f"weights {Path(f).name}", message) for f, ok, message in files if not ok]
    yield from bad
    if not files:
        yield "FAIL", "weights", "the manifest names no file"
    elif not bad:
        yield "ok", "weights", f"{len(files)} files as in the manifest"


def _data():
    from mbdl_course.datasets import check

    for name, ok, message in check():
        yield "ok" if ok else "FAIL", name, message


def _cache():
    cache = Path(os.environ.get("MBDL_CACHE") or Path.home() / ".cache" / "mbdl_course")
    for what, folder in (("cache", cache), ("temporary files", Path(tempfile.gettempdir()))):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                yield "ok", what, f"{folder} is writable"
        except OSError as error:
            yield "FAIL", what, f"{error}; set MBDL_CACHE or TMPDIR to a folder you can write"


def _machine():
    free = shutil.disk_usage(ROOT).free / 1e9
    yield "ok" if free > 1 else "warn", "disk", f"{free:.1f} GB free"
    meminfo = Path("/proc/meminfo")  # elsewhere there is no such number without another package
    if meminfo.exists():
        available = int(re.search(r"MemAvailable:\s+(\d+)", meminfo.read_text())[1]) / 1e6
        yield "ok" if available > 2 else "warn", "memory", f"{available:.1f} GB available"


# ---- chapters: find, build, measure ----


def chapters(names=()):
    """The notebooks whose file name starts with one of `names`, or all; ValueError if none does."""
    every = sorted(CHAPTERS.glob("*.ipynb"))
    for name in names:
        if not any(path.name.startswith(Path(name).name) for path in every):
            raise ValueError(f"chapter: got {name!r}, expected one of {[p.stem for p in every]}")
    starts = tuple(Path(name).name for name in names) or ("",)
    return [path for path in every if path.name.startswith(starts)]


def build(names=()):
    """Run each chapter from a fresh kernel and store its outputs in place; return the exit code."""
    for path in chapters(names):
        start = time.perf_counter()
        try:
            text = executed(path)
        except Exception as error:
            print(f"{path.name}: {error}\n{path.name} is left as it was.", file=sys.stderr)
            return 1
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
        print(
            f"{path.name}: {time.perf_counter() - start:.1f} s, {len(text.encode()) / 1e6:.2f} MB"
        )
    return 0


def executed(path):
    """The text of the notebook at `path` after a run from top to end, in the form we store.

    The kernel is this interpreter, whatever other kernels are installed. RuntimeError with the
    traceback of a cell that fails; ValueError if an output names a path of this machine.
    """
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    raw = json.loads(path.read_text(encoding="utf-8"))
    for i, cell in enumerate(raw["cells"]):  # an id that is there stays, a new one is no accident
        cell.setdefault("id", hashlib.sha256(f"{path.name} {i}".encode()).hexdigest()[:8])
    raw |= {"nbformat": 4, "nbformat_minor": 5}
    notebook = nbformat.reads(json.dumps(raw), as_version=4)
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(
            kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[])
        ),
        resources={"metadata": {"path": str(path.parent)}},
        timeout=CELL_SECONDS,
        record_timing=False,
        store_widget_state=False,
    )
    start = time.perf_counter()
    try:
        client.execute(cleanup_kc=True, env=os.environ | {"MBDL_SYNC": "1"})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise RuntimeError(str(error)) from None
    seconds = time.perf_counter() - start
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_stored, cell.outputs) if output]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"file_extension": ".py", "name": "python"},
        "mbdl": {"seconds": float(f"{seconds:.3g}")},
    }
    text = nbformat.writes(nbformat.from_dict(notebook), ensure_ascii=False).rstrip("\n") + "\n"
    for place in (str(ROOT.parent), str(Path.home()), sys.prefix, tempfile.gettempdir()):
        if len(place) > 1 and f"{place}/" in _without_images(text):
            raise ValueError(f"the notebook or an output names {place}/, a path of this machine")
    return text


def _stored(output):
    """An output without what is alive only in a running Lab; None if nothing is left of it."""
    if output.output_type == "stream" and output.name == "stderr":
        lines = output.text.splitlines(keepends=True)
        output.text = "".join(line for line in lines if "TCP without encryption" not in line)
        return output if output.text else None
    data = output.get("data", {})
    live = [key for key in data if key in LIVE]
    for key in live:
        del data[key]
    return None if live and data.keys() <= {"text/plain"} else output


def _without_images(text):
    return re.sub(r"base64,[A-Za-z0-9+/=\\n]+", "base64,", text)


def measured(path):
    """A dict of what a stored chapter costs and shows, with the list of its `faults`."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [
        c for c in notebook["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()
    ]
    outputs = [output for cell in code for output in cell["outputs"]]
    lines = [len([x for x in "".join(c["source"]).splitlines() if x.strip()]) for c in code]
    longest = max((len("".join(c["source"]).splitlines()) for c in code), default=0)
    html = "".join("".join(o.get("data", {}).get("text/html", "")) for o in outputs)
    row = {
        "chapter": path.stem,
        "seconds": notebook["metadata"].get("mbdl", {}).get("seconds"),
        "megabytes": path.stat().st_size / 1e6,
        "code lines": sum(lines),
        "longest cell": longest,
        "cards": [],
        "faults": [],
    }
    faults = row["faults"]
    for card in re.findall(r"<!-- mbdl-card (.*?) -->", html, re.DOTALL):
        try:
            row["cards"].append(json.loads(card))
        except json.JSONDecodeError as error:
            faults.append(f"a recipe card is no JSON ({error})")
    if row["seconds"] is None:
        faults.append(f"no run time stored: python -m mbdl_course build {path.stem}")
    elif row["seconds"] > CHAPTER_SECONDS:
        faults.append(f"{row['seconds']} s to run, at most {CHAPTER_SECONDS}")
    if row["megabytes"] > CHAPTER_MB:
        faults.append(f"{row['megabytes']:.2f} MB stored, at most {CHAPTER_MB}")
    if [c["execution_count"] for c in code] != list(range(1, len(code) + 1)):
        faults.append("cells not executed, or not in order")
    if any(o["output_type"] == "error" for o in outputs):
        faults.append("an error output is stored")
    if any(o.get("name") == "stderr" for o in outputs):
        faults.append("something on stderr is stored")
    return row


def clone_megabytes():
    """The size of a clone, checked-out files and packed history, in MB; None outside git.

    The history is packed anew, as a clone does: what this copy has on disk depends on its past.
    """

    def git(*words, told=None):
        return subprocess.run(
            ["git", "-C", ROOT, *words], input=told, capture_output=True, check=True
        ).stdout

    try:
        files = [ROOT / name for name in git("ls-files", "-z").decode().split("\0") if name]
        packed = len(git("pack-objects", "--revs", "--stdout", "-q", told=b"HEAD\n"))
    except (OSError, subprocess.CalledProcessError):
        return None
    return (packed + sum(f.stat().st_size for f in files if f.is_file())) / 1e6


def report():
    """Print times, sizes and recipe cards; return 1 if a budget is passed. Writes nothing."""
    rows = [measured(path) for path in chapters()]
    print(
        f"{'chapter':32}{'seconds':>9}{'MB':>7}{'code lines':>12}{'longest cell':>14}{'cards':>7}"
    )
    for row in rows:
        seconds = "-" if row["seconds"] is None else row["seconds"]
        print(
            f"{row['chapter']:32}{seconds:>9}{row['megabytes']:>7.2f}{row['code lines']:>12}"
            f"{row['longest cell']:>14}{len(row['cards']):>7}"
        )
    for row in rows:
        for card in row["cards"]:
            print(f"\n{row['chapter']}: " + ", ".join(f"{k}: {v}" for k, v in card.items()))
    faults = [f"{row['chapter']}: {fault}" for row in rows for fault in row["faults"]]
    clone = clone_megabytes()
    if clone is not None:
        print(f"\nclone {clone:.1f} MB")
        if clone > CLONE_MB:
            faults.append(f"repository: a clone is {clone:.0f} MB, at most {CLONE_MB}")
    print("\n" + ("\n".join(faults) if faults else "Within every budget."))
    return int(bool(faults))


# ---- weights ----


def weights(names=(), listed=False):
    """Make the shipped weight files (all without names) again, or list what the manifest says."""
    if listed:
        from mbdl_course.learn import manifest

        for name, entry in manifest().items():
            print(f"{name:32}{entry.get('seconds', '-'):>8} s  {entry.get('problem', '')}")
    else:
        from mbdl_course.weights import make

        make(names)
    return 0


# ---- reproduce ----


def reproduce(names=(), scale="quick", workers=1, scheduler=None, device="cpu", out="results"):
    """Compute published figures again and print ours beside the paper's; without names, list them.

    Returns 1 where a point failed. An interrupted command goes on where it was.
    """
    import torch

    from mbdl_course.reproduce import ENTRIES, run, told

    if unknown := [name for name in names if name not in ENTRIES and name != "all"]:
        raise ValueError(f"name: got {', '.join(unknown)}, expected all or some of {list(ENTRIES)}")
    if device != "cpu" and not device.startswith("cuda"):
        raise ValueError(f"device: got {device!r}, expected cpu or cuda")
    if device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"device: got {device!r}, but torch sees no GPU")
    if workers < 1:
        raise ValueError(f"workers: got {workers}, expected 1 or more")
    if workers > 1 and scheduler:
        raise ValueError(f"scheduler: got {scheduler!r} beside workers={workers}, expected one")
    if not names:
        for name, entry in ENTRIES.items():
            print(f"{name:24}{entry.title}\n{'':24}{entry.source}")
        return 0
    with _client(workers, scheduler) as client:
        failed = 0
        for name in ENTRIES if "all" in names else names:
            lines, card = run(name, ENTRIES[name], scale, out, client, device)
            failed += card["failed"]
            print(told(name, ENTRIES[name], lines, card), end="\n\n")
    return int(failed > 0)


def _client(workers, scheduler):
    if scheduler:
        from distributed import Client

        return Client(scheduler)
    if workers > 1:
        from mbdl_course.evaluate import cluster

        return cluster(workers)
    return nullcontext()


def main(words=None):
    """Run one command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m mbdl_course", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help=doctor.__doc__)
    commands.add_parser("report", help=report.__doc__)
    command = commands.add_parser("build", help=build.__doc__)
    command.add_argument("names", nargs="*", metavar="NAME", help="the start of a file name: 03")
    command = commands.add_parser("weights", help=weights.__doc__)
    command.add_argument("names", nargs="*", metavar="NAME")
    command.add_argument("--list", action="store_true", dest="listed")
    command = commands.add_parser("reproduce", help=reproduce.__doc__)
    command.add_argument("names", nargs="*", metavar="NAME", help="all: every entry")
    command.add_argument("--scale", choices=["quick", "paper"], default="quick")
    command.add_argument("--workers", type=int, default=1, metavar="N", help="processes here")
    command.add_argument("--scheduler", metavar="URL", help="a Dask scheduler: tcp://...")
    command.add_argument("--device", default="cpu", help="cpu or cuda")
    command.add_argument("--out", default="results", metavar="FOLDER")
    arguments = vars(parser.parse_args(words))
    run = {"doctor": doctor, "report": report, "build": build, "weights": weights,
           "reproduce": reproduce}  # fmt: skip
    try:
        return run[arguments.pop("command")](**arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
