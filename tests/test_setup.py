"""The repository's own order: dependencies held together, imports one way, a set-up that speaks."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mbdl_course

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = PROJECT["dependencies"] + sum(PROJECT["optional-dependencies"].values(), [])
DECLARED = sorted(set(DECLARED))

# ---- pyproject.toml, environment.yml, constraints.txt ----

CONDA = {"torch": "pytorch"}  # where conda-forge has another name


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def pinned():
    return {canonicalize_name(name): version for name, version in (p.split("==") for p in pins())}


def environment():
    """Canonical name -> range, conda's packages and pip's alike."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    conda = [entry for entry in listed if isinstance(entry, str)]
    requirements = map(Requirement, [*conda, *(entry for entry in pip if entry != "-e .")])
    return {canonicalize_name(r.name): r.specifier for r in requirements}


def test_constraints_are_plain_versions():
    for line in pins():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line
    names = [canonicalize_name(line.split("==")[0]) for line in pins()]
    assert names == sorted(set(names))


@pytest.mark.parametrize("text", DECLARED)
def test_each_dependency_is_pinned_inside_its_range(text):
    requirement = Requirement(text)
    assert requirement.specifier.contains(pinned()[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("text", DECLARED)
def test_each_dependency_has_the_same_range_in_conda(text):
    requirement = Requirement(text)
    name = canonicalize_name(CONDA.get(requirement.name, requirement.name))
    assert environment()[name] == requirement.specifier


def test_conda_asks_for_nothing_else():
    names = {canonicalize_name(CONDA.get(r.name, r.name)) for r in map(Requirement, DECLARED)}
    assert environment().keys() == names | {"python", "pip"}
    assert environment()["python"] == Requirement("python" + PROJECT["requires-python"]).specifier


def test_the_whole_closure_is_pinned():
    """Whatever our packages bring is pinned too, apart from what torch pins itself."""
    todo, seen = [(r.name, r.extras) for r in map(Requirement, DECLARED)], set()
    while todo:
        name, extras = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # an extra that is not installed here
            continue
        for r in map(Requirement, requires):
            if not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras or [""]):
                todo.append((r.name, r.extras))
    ours = {canonicalize_name(name) for name in seen}
    assert {
        n for n in ours - pinned().keys() if not n.startswith(("nvidia-", "cuda-", "triton"))
    } == set()


def test_one_version():
    version = mbdl_course.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


# ---- imports go one way ----

RANK = {"__init__": 0, "fold": 1, "prox": 1, "operators": 1}
RANK |= dict.fromkeys(["unfold", "networks", "learn", "evaluate", "datasets"], 2)
RANK |= dict.fromkeys(["equilibrium", "euler", "kalman_training"], 2)
RANK |= {"weights": 4, "exercises": 4, "reproduce": 5, "__main__": 6}
DRAWING = {"show": {"matplotlib"}, "widgets": {"matplotlib", "ipywidgets"}}
MAY_DRAW = {"widgets", "exercises", "reproduce", "__main__"}
TASK = 3  # every other module


def imported(tree, package=()):
    """Absolute dotted names of all imports, those inside functions too; `package` resolves dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def wrong_imports(path, source):
    """What a module at mbdl_course/<path> imports against the one direction, in words."""
    parts = ("mbdl_course", *Path(path).with_suffix("").parts)
    own = parts[1]
    for name in imported(ast.parse(source), parts[:-1]):
        root, _, rest = name.partition(".")
        if root in ("matplotlib", "ipywidgets") and root not in DRAWING.get(own, ()):
            yield f"{path} imports {root}"
        other = rest.split(".")[0]
        if root != "mbdl_course" or other in (own, "__version__"):
            continue
        here, there = RANK.get(own, TASK), RANK.get(other, TASK)
        if other in DRAWING:
            wrong = own not in MAY_DRAW
        elif own in DRAWING:
            wrong = there >= TASK
        else:
            wrong = there > here or there == here == TASK
        if wrong:
            yield f"{path} imports {other}"


@pytest.mark.parametrize(
    "path",
    [p.relative_to(ROOT / "mbdl_course") for p in sorted((ROOT / "mbdl_course").rglob("*.py"))],
    ids=str,
)
def test_imports_go_one_way(path):
    source = (ROOT / "mbdl_course" / path).read_text(encoding="utf-8")
    assert list(wrong_imports(path, source)) == []


@pytest.mark.parametrize(
    ("path", "line", "wrong"),
    [
        ("sparse.py", "from .prox import soft_threshold", False),
        ("sparse.py", "from mbdl_course import unfold", False),
        ("sparse.py", "from . import tracking", True),
        ("sparse.py", "import mbdl_course.show", True),
        ("sparse.py", "def f():\n    import matplotlib.pyplot", True),
        ("tracking/parts.py", "from .algorithm import step", False),
        ("tracking/parts.py", "from ..sparse import ista", True),
        ("prox.py", "from .fold import last", False),
        ("prox.py", "from .learn import training", True),
        ("learn.py", "from .datasets import data_dir", False),
        ("learn.py", "from .sparse import ista", True),
        ("learn.py", "from .weights import make", True),
        ("weights.py", "from .sparse import ista", False),
        ("exercises.py", "from .widgets import lab", False),
        ("show.py", "from matplotlib.figure import Figure", False),
        ("show.py", "import ipywidgets", True),
        ("show.py", "from .sparse import ista", True),
        ("widgets.py", "from . import show", False),
        ("widgets.py", "from .sparse import ista", True),
        ("__main__.py", "from mbdl_course.weights import make", False),
        ("weights.py", "from .__main__ import build", True),
    ],
)
def test_a_wrong_import_is_seen(path, line, wrong):
    assert bool(list(wrong_imports(path, line))) == wrong


@pytest.mark.parametrize(
    ("path", "line", "banned"),
    [
        ("mbdl_course/sparse.py", "import matplotlib.pyplot as plt", True),
        ("mbdl_course/sparse.py", "from mbdl_course import widgets", True),
        ("mbdl_course/prox.py", "def f():\n    from ipywidgets import HTML\n", True),
        ("mbdl_course/show.py", "from matplotlib.figure import Figure", False),
        ("tests/test_show.py", "from mbdl_course import show", False),
    ],
)
def test_the_linter_bans_drawing(path, line, banned):
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--stdin-filename"]
    run = subprocess.run(
        [*command, path, "-"], input=line, text=True, capture_output=True, cwd=ROOT
    )
    assert (run.returncode == 1) == banned, run.stdout + run.stderr


def test_the_package_is_light():
    """`import mbdl_course` loads nothing heavy; the computing modules never load what draws."""
    code = "import sys, mbdl_course; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy", "matplotlib", "ipywidgets"} & set(loaded.stdout.split())
    modules = {p.stem for p in (ROOT / "mbdl_course").glob("*.py")} - {"__init__", "__main__"}
    modules -= {"show", "widgets", "exercises"}
    code = (
        f"import sys, {', '.join(f'mbdl_course.{m}' for m in sorted(modules))}; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"matplotlib", "ipywidgets", "IPython"} & set(loaded.stdout.split())


# ---- the set-up speaks ----


@pytest.fixture
def bare(tmp_path):
    """A folder with what `make` reads and no .venv."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder, *words):
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True)


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_no_fitting_python_is_told(bare):
    run = make(bare, "lab", "PYTHON=no-such-python")
    assert run.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13; tried: no-such-python" in run.stderr
    assert not (bare / ".venv").exists()


def test_an_old_python_is_told(bare):
    old = script(bare / "python3.9", "exit 1")  # the version question answered with no
    run = make(bare, "test", f"PYTHON={old}")
    assert run.returncode != 0 and f"tried: {old}" in run.stderr


def test_a_python_without_venv_is_told(bare):
    """Debian's python3 without python3-venv leaves half an environment: it must not stay."""
    half = script(bare / "half", 'case "$1" in -m) mkdir -p .venv/bin; exit 1;; esac')
    run = make(bare, "lab", f"PYTHON={half}")
    assert run.returncode != 0 and "python3-venv" in run.stderr
    assert not (bare / ".venv").exists()


def test_a_moved_folder_is_set_up_again_and_a_ready_one_is_not(bare):
    """The environment names its place; a second run in the same place has nothing to set up."""
    (bare / ".venv" / "bin").mkdir(parents=True)
    script(bare / ".venv" / "bin" / "python", "echo works")
    for name in ("ready", "lab"):
        (bare / ".venv" / name).touch()
    recorded = bare / ".venv" / "pyvenv.cfg"
    recorded.write_text(f"command = python3 -m venv {bare}/.venv\n")
    assert "venv --clear" not in make(bare, "-n", "lab").stdout
    recorded.write_text("command = python3 -m venv /elsewhere/.venv\n")
    assert "venv --clear" in make(bare, "-n", "lab").stdout


def test_an_unknown_torch_build_is_told(bare):
    run = make(bare, "lab", "TORCH=gpu")
    assert run.returncode != 0 and 'TORCH: got "gpu", expected cpu or nothing' in run.stderr


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_local_links_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert re.search(r"!\[\s*\]\(", text) is None
