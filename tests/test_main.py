"""The commands: doctor says what is broken, build stores clean chapters, report holds budgets."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import jupyter_core.paths
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mbdl_course import __main__ as command

# ---- doctor ----


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with one weight file that is as its manifest says."""
    folder = tmp_path / "data" / "weights"
    folder.mkdir(parents=True)
    (folder / "tiny.safetensors").write_bytes(bytes(range(64)))
    entry = {"sha256": hashlib.sha256(bytes(range(64))).hexdigest(), "seconds": 1.0}
    (folder / "manifest.json").write_text(json.dumps({"tiny": entry}))
    shipped = Path(__file__).resolve().parents[1] / "data"
    for read in [*shipped.glob("*.csv"), *shipped.glob("*.wav")]:
        shutil.copy(read, tmp_path / "data")
    monkeypatch.setenv("MBDL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MBDL_CACHE", str(tmp_path / "cache"))
    return folder


def failing(capsys):
    """Exit code and FAIL lines of the doctor."""
    code = command.main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    return code, [line for line in lines if line.startswith("FAIL")]


def test_doctor_passes_here(data, capsys):
    assert failing(capsys) == (0, [])


def test_doctor_on_the_shipped_course(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "MBDL_DATA"} | {"MBDL_CACHE": str(tmp_path)}
    run = [sys.executable, "-m", "mbdl_course", "doctor"]
    run = subprocess.run(run, capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.rstrip().endswith("The course will run.")


def test_doctor_sees_a_truncated_weight_file(data, capsys):
    (data / "tiny.safetensors").write_bytes(bytes(range(63)))
    code, lines = failing(capsys)
    assert code == 1 and len(lines) == 1 and "tiny.safetensors" in lines[0] and "sha256" in lines[0]


@pytest.mark.parametrize("name", ["tiny.safetensors", "manifest.json"])
def test_doctor_sees_a_missing_weight_file(data, capsys, name):
    (data / name).unlink()
    code, lines = failing(capsys)
    assert code == 1 and len(lines) == 1 and "missing" in lines[0]


def test_doctor_sees_a_manifest_that_names_nothing(data, capsys):
    (data / "manifest.json").write_text("{}")
    assert failing(capsys)[0] == 1


def test_doctor_sees_a_missing_data_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MBDL_DATA", str(tmp_path / "nowhere"))
    code, lines = failing(capsys)
    assert code == 1 and any("nowhere" in line for line in lines)


def version_without(missing):
    """importlib.metadata.version where one package is not installed."""
    real = metadata.version

    def version(name):
        if name == missing:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    return version


@pytest.mark.parametrize(
    ("missing", "code", "extra"),
    [("safetensors", 1, '-e "."'), ("ipykernel", 1, '-e ".[lab]"'), ("ruff", 0, '-e ".[test]"')],
)
def test_doctor_sees_a_missing_package(data, monkeypatch, capsys, missing, code, extra):
    """Core and [lab] stop the course, [test] does not; each comes with the line that brings it."""
    monkeypatch.setattr(metadata, "version", version_without(missing))
    assert command.main(["doctor"]) == code
    (line,) = [x for x in capsys.readouterr().out.splitlines() if f"{missing} missing" in x]
    assert line.startswith("FAIL" if code else "warn") and extra in line


def test_doctor_sees_a_version_out_of_range(data, monkeypatch, capsys):
    real = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "7.8.1" if name == "ipywidgets" else real(name)
    )
    code, lines = failing(capsys)
    assert code == 1 and "ipywidgets 7.8.1, expected <9,>=8.1" in lines[0]


def test_doctor_sees_a_package_that_does_not_load(data, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pywt", None)
    code, lines = failing(capsys)
    assert code == 1 and any("PyWavelets" in line and "does not load" in line for line in lines)


def test_doctor_without_torch_is_a_table_and_no_traceback(data):
    code = "import sys; sys.modules['torch'] = None; from mbdl_course.__main__ import main"
    run = [sys.executable, "-c", code + "; sys.exit(main(['doctor']))"]
    run = subprocess.run(run, capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr == ""
    assert run.stdout.startswith("ok    python") and "FAIL  torch" in run.stdout


def test_doctor_sees_an_old_python(data, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 10, 12))
    code, lines = failing(capsys)
    assert code == 1 and "3.11 to 3.13" in lines[0]


def test_doctor_sees_missing_widgets(data, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(jupyter_core.paths, "jupyter_path", lambda *_: [str(tmp_path)])
    code, lines = failing(capsys)
    assert code == 1 and len(lines) == 1 and "jupyterlab-manager missing" in lines[0]


def test_doctor_sees_disabled_widgets(data, monkeypatch, capsys, tmp_path):
    """The Lab's own switch: page_config.json of any of its configuration folders."""
    config = tmp_path / "config" / "labconfig"
    config.mkdir(parents=True)
    disabled = {"disabledExtensions": {"@jupyter-widgets/jupyterlab-manager": True}}
    (config / "page_config.json").write_text(json.dumps(disabled))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(config.parent))
    code, lines = failing(capsys)
    assert code == 1 and "jupyterlab-manager disabled" in lines[0]


def test_doctor_sees_a_cache_that_cannot_be_written(data, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MBDL_CACHE", str(tmp_path / "file" / "cache"))
    code, lines = failing(capsys)
    assert code == 1 and len(lines) == 1 and "set MBDL_CACHE" in lines[0]


# ---- build ----


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of chapters that the commands work on."""
    monkeypatch.setattr(command, "CHAPTERS", tmp_path / "chapters")
    command.CHAPTERS.mkdir()
    return command.CHAPTERS


def written(path, *sources):
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


def stored(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_build_stores_a_clean_notebook(folder, capsys):
    path = written(
        folder / "01_one.ipynb",
        "import os, sys\nfrom pathlib import Path\nPath.cwd().name, os.environ['MBDL_SYNC']",
        "assert sys.version_info[:2] == " + repr(sys.version_info[:2]),
        "import ipywidgets\nfrom IPython.display import HTML, Javascript, display\n"
        "display(ipywidgets.IntSlider(), HTML('<p>still</p>'), Javascript('1'))",
        "print('seen')\nprint('noise', file=sys.stderr)",
    )
    raw = stored(path)  # as another editor leaves it: no ids, a foreign kernel, timestamps
    for cell in raw["cells"]:
        del cell["id"]
        cell["metadata"]["execution"] = {"iopub.execute_input": "2020-01-01T00:00:00Z"}
    raw["nbformat_minor"] = 4
    raw["metadata"]["kernelspec"] = {"name": "nobody-has-this", "display_name": "x"}
    path.write_text(json.dumps(raw))
    assert command.main(["build", "01"]) == 0
    text, cells = path.read_text(encoding="utf-8"), stored(path)["cells"]
    assert (
        text.startswith('{\n "cells"')
        and text.endswith("}\n")
        and "widget" not in str([cell["outputs"] for cell in cells])
    )
    assert cells[0]["outputs"][0]["data"]["text/plain"] == ["('chapters', '1')"]
    assert [o["data"].get("text/html") for o in cells[2]["outputs"]] == [["<p>still</p>"]]
    assert [o["name"] for o in cells[3]["outputs"]] == ["stdout", "stderr"]
    assert [cell["execution_count"] for cell in cells] == [1, 2, 3, 4]
    assert not any("execution" in cell["metadata"] for cell in cells)
    notebook = stored(path)["metadata"]
    assert 0 < notebook["mbdl"]["seconds"] < 60 and "version" not in notebook["language_info"]
    assert not {"widgets", "signature"} & notebook.keys()
    assert command.main(["build", "01_one"]) == 0  # again: only the seconds may differ
    again = stored(path)
    assert again["cells"] == cells
    assert list(folder.iterdir()) == [path]


def test_build_tells_the_failing_cell_and_leaves_the_file(folder, capsys):
    path = written(folder / "02_two.ipynb", "x = 1", "raise ZeroDivisionError('on purpose')")
    before = path.read_bytes()
    assert command.main(["build"]) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told and "on purpose" in told and "02_two.ipynb" in told
    assert path.read_bytes() == before and list(folder.iterdir()) == [path]


def test_build_refuses_a_path_of_this_machine(folder, capsys):
    path = written(folder / "02_two.ipynb", "import sys\nprint(sys.prefix + '/bin')")
    before = path.read_bytes()
    assert command.main(["build"]) == 1
    assert "a path of this machine" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_build_tells_an_unknown_chapter(folder, capsys):
    written(folder / "02_two.ipynb", "1")
    assert command.main(["build", "07"]) == 2
    assert "got '07', expected one of ['02_two']" in capsys.readouterr().err


def test_a_widget_beside_its_picture_leaves_the_picture():
    view = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "Lab()"}
    noise = "INFO: running over TCP without encryption\n"
    kept = [
        command._stored(new_output("display_data", view)),
        command._stored(new_output("display_data", view | {"text/html": "<figure>"})),
        command._stored(new_output("stream", name="stderr", text=noise)),
        command._stored(new_output("stream", name="stderr", text=noise + "more\n")),
    ]
    assert kept[0] is None and kept[2] is None and kept[3].text == "more\n"
    assert kept[1].data == {"text/html": "<figure>", "text/plain": "Lab()"}


# ---- report ----


def chapter(path, seconds=1.0, output=(), count=1):
    cell = new_code_cell("x = 1\n\ny = 2", execution_count=count, outputs=list(output))
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), cell])
    notebook.metadata.mbdl = {"seconds": seconds}
    nbformat.write(notebook, path)


def html(text):
    return new_output("display_data", {"text/html": text})


def test_report_within_every_budget(folder, capsys):
    chapter(folder / "01_one.ipynb", 12.3, [html('<i><!-- mbdl-card {"seeds": 5} --></i>')])
    assert command.main(["report"]) == 0
    told = capsys.readouterr().out
    assert "01_one" in told and "12.3" in told and "01_one: seeds: 5" in told
    assert command.measured(folder / "01_one.ipynb")["code lines"] == 2


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"seconds": 90.5}, "90.5 s to run, at most 90"),
        ({"seconds": None}, "no run time stored"),
        ({"output": [html("x" * 1_500_000)]}, "MB stored, at most 1.5"),
        ({"count": 2}, "not in order"),
        ({"count": None}, "not executed"),
        ({"output": [new_output("error", ename="E", evalue="", traceback=[])]}, "error output"),
        ({"output": [new_output("stream", name="stderr", text="w")]}, "stderr"),
        ({"output": [html("<!-- mbdl-card {oops -->")]}, "recipe card"),
    ],
)
def test_report_tells_each_fault(folder, capsys, change, fault):
    chapter(folder / "01_one.ipynb", **change)
    before = (folder / "01_one.ipynb").read_bytes()
    assert command.main(["report"]) == 1
    assert fault in capsys.readouterr().out
    assert (folder / "01_one.ipynb").read_bytes() == before


def test_report_holds_the_size_of_a_clone(folder, monkeypatch, capsys):
    monkeypatch.setattr(command, "clone_megabytes", lambda: 61.0)
    assert command.main(["report"]) == 1 and "61 MB, at most 60" in capsys.readouterr().out


def test_the_size_of_a_clone_outside_git(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "ROOT", Path(tmp_path))
    assert command.clone_megabytes() is None


def test_the_size_of_a_clone_counts_files_and_history(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "ROOT", tmp_path)
    (tmp_path / "big").write_bytes(os.urandom(2_000_000))
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "big"], [*who, "commit", "-qm", "big"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert 4.0 <= command.clone_megabytes() <= 4.1
    subprocess.run(["git", "hash-object", "-w", "--stdin"], input=os.urandom(10**6), cwd=tmp_path)
    assert command.clone_megabytes() <= 4.1, "a loose object that no clone gets was counted"


# ---- weights ----


def test_weights_makes_what_is_named(monkeypatch):
    made = []
    module = types.ModuleType("mbdl_course.weights")
    module.make = made.append
    monkeypatch.setitem(sys.modules, "mbdl_course.weights", module)
    assert command.main(["weights", "lista", "admm"]) == 0 and command.main(["weights"]) == 0
    assert made == [["lista", "admm"], []]


def test_weights_lists_the_manifest(data, capsys):
    assert command.main(["weights", "--list"]) == 0
    assert capsys.readouterr().out.split() == ["tiny", "1.0", "s"]


def test_a_command_is_needed(capsys):
    with pytest.raises(SystemExit):
        command.main([])
    assert "doctor" in capsys.readouterr().err
