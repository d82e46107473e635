# `make report` and `make test` set up what they need and do their job; `make help` lists the rest.
#
# The environment is the active virtual or conda environment (not conda's base), or else .venv, which is made here.
# TORCH_INDEX=, the address of the index of CPU builds that torch's own install page names, spares a Linux machine without a GPU the CUDA build.

STUDY ?= smoke
BENCH ?=
TORCH_INDEX ?=

CONDA := $(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX))
ENV := $(or $(VIRTUAL_ENV),$(CONDA),.venv)
PYTHON := $(ENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check
BASE_PYTHON = $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
STAMP := $(ENV)/.setup-peftlab-$(shell (pwd; cat requirements.lock pyproject.toml) | cksum | cut -d' ' -f1)

export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY = 1
export TOKENIZERS_PARALLELISM = false
export JUPYTER_PLATFORM_DIRS = 1

.DEFAULT_GOAL := help
.PHONY: help setup assets report test bench publish lab doctor parameters lock clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1|\2/' | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: $(STAMP)  ## the environment with every locked package; a second call does nothing

assets: setup  ## fetch, check and convert what is fetched once
	@$(PYTHON) -m peftlab assets

report: assets  ## fine-tune the smoke grid here and write its report to report/build (STUDY=main for another)
	$(PYTHON) -m peftlab run $(STUDY)
	$(PYTHON) -m peftlab report $(STUDY)

test: assets  ## every test, on as many cores as there are, up to four
	$(PYTHON) -m pytest --import-mode=importlib -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder tests

bench: assets  ## measure speed and memory beside what a user would run instead (BENCH=steps for one)
	$(PYTHON) -m bench $(BENCH)

publish: setup  ## renew the tracked results, figures and report (everything must be committed)
	$(PYTHON) -m peftlab publish

lab: assets  ## open the notebooks in JupyterLab
	$(PYTHON) -m jupyterlab notebooks

doctor: setup  ## what is there, what is missing and how to get it
	@$(PYTHON) -m peftlab doctor

parameters: setup  ## rewrite the notebooks' parameters cells from Run
	@$(PYTHON) -m peftlab parameters

lock:  ## make requirements.lock again from pyproject.toml, in a clean environment
	rm -rf .lock && $(BASE_PYTHON) -m venv .lock/env
	.lock/env/bin/pip install --quiet '.[lab,test]' setuptools
	sed -n '/^#/p' requirements.lock > .lock/new
	.lock/env/bin/pip freeze --all | sed -E 's/\+[A-Za-z0-9.]+$$//' | grep -E '^[A-Za-z0-9_.-]+==' | grep -vE '^(nvidia-|cuda-|triton|pip=|wheel=|peftlab=)' >> .lock/new
	mv .lock/new requirements.lock && rm -rf .lock

clean:  ## remove what `make report` and the tests write; runs, prepared data and assets (data/) stay
	rm -rf report/build .pytest_cache .lock build

$(STAMP):
	@test -n "$(BASE_PYTHON)" || { echo "peftlab needs Python 3.11 or later: install it, or activate an environment that has it" >&2; exit 1; }
	@test -x $(PYTHON) || $(BASE_PYTHON) -m venv $(ENV)
	@echo "setting up $(ENV): a few minutes, once"
	$(if $(TORCH_INDEX),$(PIP) install --quiet --index-url $(TORCH_INDEX) $(shell grep '^torch==' requirements.lock))
	$(PIP) install --quiet -r requirements.lock
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@rm -f $(ENV)/.setup-peftlab-* && touch $@
