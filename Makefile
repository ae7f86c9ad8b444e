# Everything Cartograd's people run. Each target makes the environment that it needs, once.
#
#   make train        the main job: a classifier of handwritten digits
#   make test         the tests (light dependencies)
#   make conformance  the comparisons with PyTorch, in an environment of their own
#   make check        format, lint, types, docs, tests: all that CI runs but the comparisons
#   make bench        whole training steps beside PyTorch and JAX, in an environment of their own
#   make bench-parts  the parts: kernels, threads, the eager path, what the machine can do
#   make docs         the pages, in docs/_build/html
#   make clean        remove environments, caches and builds
#
# PYTHON=... picks the interpreter (3.11 or newer); JOBS=... runs that many tests at once (2); ARGS=... is
# handed to the command that a target ends with.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
CONFORMANCE := .venv-conformance
BENCH := .venv-bench
JOBS := 2
ARGS :=

# One thread for each process's matrix products: they are small, and two processes share the cores.
export OPENBLAS_NUM_THREADS ?= 1

# The first Python that is new enough and can make environments. PyTorch 2.13.0 decides for the comparisons.
define find-python
for python in $(1); do \
  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
    echo "$$python"; exit 0; \
  fi; \
done; \
echo "no Python >= 3.11 with its venv module was found (on Debian: apt-get install python3-venv);" \
     "name one with make PYTHON=/path/to/python" >&2; exit 1
endef

.PHONY: help train test conformance check format docs bench bench-parts clean

help:
	@sed -n 's/^#   /  /p' Makefile

train: $(VENV)/stamp-train
	$(VENV)/bin/cartograd train digits $(ARGS)

test: $(VENV)/stamp-test
	$(VENV)/bin/python -m pytest -n $(JOBS) $(ARGS)

conformance: $(CONFORMANCE)/stamp
	$(CONFORMANCE)/bin/python -m pytest conformance $(ARGS)

check: $(VENV)/stamp-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright
	$(VENV)/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	$(VENV)/bin/python -m pytest -n $(JOBS) $(ARGS)

format: $(VENV)/stamp-dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/stamp-dev
	$(VENV)/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# ARGS goes to the training steps: ARGS="--more --threads 1,2 --markdown benchmarks/RESULTS.md" makes the page.
bench: $(BENCH)/stamp
	$(BENCH)/bin/python benchmarks/steps.py $(ARGS)

# Each of these prints its own table: what the machine can do, and what each kind of kernel makes of it.
bench-parts: $(BENCH)/stamp
	@set -e; for script in $(filter-out benchmarks/steps.py benchmarks/stages.py,$(sort $(wildcard benchmarks/*.py))); do \
	  echo "== $$script"; $(BENCH)/bin/python "$$script"; \
	done

clean:
	rm -rf $(VENV) $(CONFORMANCE) $(BENCH) build dist docs/_build docs/ops.md docs/api .pytest_cache .ruff_cache .hypothesis
	find src tests conformance benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/bin/python:
	@set -e; python=$(if $(PYTHON),'$(PYTHON)',$$($(call find-python,python3 python3.13 python3.12 python3.11 python))); \
	echo "making $(VENV) with $$python"; "$$python" -m venv $(VENV)

$(CONFORMANCE)/bin/python:
	@set -e; python=$(if $(PYTHON),'$(PYTHON)',$$($(call find-python,python3.11 python3.12 python3.13 python3))); \
	echo "making $(CONFORMANCE) with $$python"; "$$python" -m venv $(CONFORMANCE)

$(BENCH)/bin/python:
	@set -e; python=$(if $(PYTHON),'$(PYTHON)',$$($(call find-python,python3.11 python3.12 python3.13 python3))); \
	echo "making $(BENCH) with $$python"; "$$python" -m venv $(BENCH)

$(VENV)/stamp-train: pyproject.toml | $(VENV)/bin/python
	@echo "installing cartograd in $(VENV)"
	@$(VENV)/bin/python -m pip install -q -e .
	@touch $@

$(VENV)/stamp-test: pyproject.toml | $(VENV)/bin/python
	@echo "installing cartograd and what its tests need in $(VENV)"
	@$(VENV)/bin/python -m pip install -q -e '.[test]'
	@touch $@

$(VENV)/stamp-dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing cartograd and its developers' tools in $(VENV)"
	@$(VENV)/bin/python -m pip install -q -e '.[dev]'
	@touch $@

# torch first and by its exact version: nothing may bring another build of it.
$(CONFORMANCE)/stamp: pyproject.toml | $(CONFORMANCE)/bin/python
	@echo "installing cartograd, PyTorch and HIPS autograd in $(CONFORMANCE)"
	@$(CONFORMANCE)/bin/python -m pip install -q torch==2.13.0
	@$(CONFORMANCE)/bin/python -m pip install -q -e '.[conformance]'
	@touch $@

$(BENCH)/stamp: pyproject.toml | $(BENCH)/bin/python
	@echo "installing cartograd, PyTorch, JAX and HIPS autograd in $(BENCH)"
	@$(BENCH)/bin/python -m pip install -q torch==2.13.0
	@$(BENCH)/bin/python -m pip install -q -e '.[bench]'
	@touch $@
