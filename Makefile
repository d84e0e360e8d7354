# Every target makes what it needs: `make test` on a fresh clone is enough. No root, no compiler, no server.
#
#   make setup   .venv with everything          make check   lint and type-check
#   make demo    the main job, live             make prove   full doses of faults, kills and fuzzing
#   make test    all tests                      make bench   measure against the peers
#   make docs    build the documentation
#
# ARGS reaches the command: make demo ARGS="--seconds 20"

# WORKERS is how many processes run the tests: more than two cores, because many tests wait for servers.

.DEFAULT_GOAL := help
.PHONY: help setup demo test check prove bench docs clean

VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
ARGS  ?=
WORKERS ?= 3

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(READY)

$(READY): pyproject.toml .ci/find-python
	@python="$$(sh .ci/find-python)" && echo "setup: $(VENV) from $$python" && "$$python" -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[all,dev]'
	@touch $(READY)

$(PEERS): $(READY)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[all,dev,bench]'
	@touch $(PEERS)

demo: $(READY)
	@$(VENV)/bin/genesis-cache demo $(ARGS)

test: $(READY)
	@$(PY) -m pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

check: $(READY)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/mypy

prove: $(READY)
	@$(PY) -m tests.prove $(ARGS)

bench: $(PEERS)
	@$(PY) -m bench $(ARGS)

docs: $(READY)
	@$(VENV)/bin/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	@rm -rf $(VENV) docs/_build build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
