# The course's commands. Everything they install or write goes to .venv; `make clean` removes it.
#
#   make lab                 set up once, then open the course in JupyterLab
#   make test                every check: lint, budgets, unit and law tests, chapters, browser
#   make build [NAMES=03]    run chapters from a fresh kernel and store their outputs
#   make weights [NAMES=x]   make the shipped weights again
#   make bench [NAMES=x]     ours against other libraries; ARGS=--store keeps the ratios
#   make report | doctor | lint | clean
#
# TORCH=cpu: the small torch build; PYTHON=...: the interpreter; ARGS=...: more for JupyterLab or pytest

VENV := .venv
PY := $(VENV)/bin/python
PYTHON ?=
TORCH ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
NAMES ?=
ARGS ?=
# Test processes, one thread each; a notebook or a module stays in one of them.
WORKERS ?= 2
ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH: got "$(TORCH)", expected cpu or nothing)
endif
PIP := $(PY) -m pip --disable-pip-version-check install -c constraints.txt

# Jupyter, IPython and matplotlib keep their settings here too: nothing of the user's is touched.
export JUPYTER_CONFIG_DIR := $(CURDIR)/$(VENV)/jupyter/config
export JUPYTER_DATA_DIR := $(CURDIR)/$(VENV)/jupyter/data
export JUPYTER_RUNTIME_DIR := $(CURDIR)/$(VENV)/jupyter/runtime
export JUPYTERLAB_SETTINGS_DIR := $(CURDIR)/$(VENV)/jupyter/settings
export JUPYTERLAB_WORKSPACES_DIR := $(CURDIR)/$(VENV)/jupyter/workspaces
export IPYTHONDIR := $(CURDIR)/$(VENV)/ipython
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/matplotlib
export MBDL_CACHE := $(CURDIR)/$(VENV)/cache

.PHONY: lab test lint report doctor build weights bench clean
.DEFAULT_GOAL := lab

# Loopback and a token always; no look round for language servers (it starts npm where there is one);
# root, as in a container, has to be said.
lab: $(VENV)/lab
	$(PY) -m jupyterlab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir=. \
	    --LanguageServerManager.autodetect=False $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS) chapters/00_start_here.ipynb

# The report comes before pytest so that pytest's closing line is the last one.
test: lint report
	MBDL_SYNC=1 OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadscope \
	    --no-loadscope-reorder --nbval-lax --nbval-current-env --nbval-cell-timeout=120 \
	    tests chapters $(ARGS)

lint: $(VENV)/test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

report: $(VENV)/test
	$(PY) -m mbdl_course report

doctor: $(VENV)/lab
	$(PY) -m mbdl_course doctor

build: $(VENV)/test
	OMP_NUM_THREADS=2 $(PY) -m mbdl_course build $(NAMES)

weights: $(VENV)/lab
	$(PY) -m mbdl_course weights $(NAMES)

bench: $(VENV)/bench
	OMP_NUM_THREADS=1 $(PY) benchmarks/run.py $(NAMES) $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache mbdl_course.egg-info

# ---- set-up: each stamp is as new as what it was made from, so a second run has nothing to do ----

# A Python that went away, or a folder that was moved, means making .venv again.
ifneq ($(shell grep -qF -- "$(CURDIR)/$(VENV)" $(VENV)/pyvenv.cfg 2>&1 && $(PY) -c 'print("works")' 2>&1),works)
.PHONY: $(VENV)/ready
endif

FITS := import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

$(VENV)/ready:
	@if $(PY) -c 'import pip; $(FITS)' 2>/dev/null && grep -qF -- "$(CURDIR)/$(VENV)" $(VENV)/pyvenv.cfg; then touch $@; exit 0; fi; \
	for python in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3); do \
	    "$$python" -c '$(FITS)' 2>/dev/null || continue; \
	    echo "Making $(VENV) with $$("$$python" --version) ($$python)"; \
	    "$$python" -m venv --clear $(VENV) && touch $@ && exit 0; \
	    rm -rf $(VENV); \
	    echo "$$python could not make a virtual environment (see above; on Debian and Ubuntu: apt install python3-venv)." >&2; \
	done; \
	echo "The course needs Python 3.11, 3.12 or 3.13; tried: $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3)." >&2; \
	echo "Install one of them, or name yours: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
	exit 1

# The small build: from the indexes pip already has, otherwise from PyTorch's own. (On macOS the plain
# build is the small one.)
$(VENV)/torch-cpu: $(VENV)/ready constraints.txt
	@version="$$(sed -n 's/^torch==//p' constraints.txt)+cpu"; \
	[ "$$(uname)" = Darwin ] || $(PIP) "torch==$$version" 2>/dev/null || $(PIP) --extra-index-url $(TORCH_INDEX) "torch==$$version"
	@touch $@

SETUP := $(VENV)/ready $(if $(filter cpu,$(TORCH)),$(VENV)/torch-cpu) pyproject.toml constraints.txt

$(VENV)/lab: $(SETUP)
	$(PIP) -e '.[lab]'
	$(PY) -m jupyterlab.labextensions disable --level=sys_prefix @jupyterlab/apputils-extension:announcements
	@touch $@

# What the tests need holds what the Lab needs.
$(VENV)/test: $(SETUP)
	$(PIP) -e '.[lab,test]'
	$(PY) -m jupyterlab.labextensions disable --level=sys_prefix @jupyterlab/apputils-extension:announcements
	@touch $(VENV)/lab $@

# The peers of the benchmarks that the tests do not need.
$(VENV)/bench: $(VENV)/test
	$(PIP) -e '.[bench]'
	@touch $@
