# `make help` lists the targets. Every target builds .venv by itself when it is missing or out of date.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
# The one place of the version is pyproject.toml.
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
HELM = $(shell PATH=$(CURDIR)/.tools:$$PATH command -v helm)
# Most tests wait, so three processes share two cores, each with servers of its own. Given servers are not shared.
# Files go out by name: sorted by their number of tests, the long ones would come last, when one process works alone.
WORKERS ?= $(if $(LEVELSYNC_TEST_KAFKA),0,4)

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
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
	$(BIN)/pytest -m 'not soak' -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: soak
soak: install  ## the long runs: kills by the twenty, outages of ten minutes, fuzzing (under 25 minutes)
	$(BIN)/pytest -m soak -o timeout=1500 -n $(if $(LEVELSYNC_TEST_KAFKA),0,2) --dist loadfile --no-loadscope-reorder

.PHONY: mutants
mutants: install  ## apply each known mutant of the service to a copy, and see a named test fail (minutes)
	$(BIN)/python -m tests.mutants

.PHONY: lint
lint: install  ## ruff, the direction of imports, spelling and our list of words (docs/words.txt)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	git ls-files '*.md' '*.py' '*.sql' '*.yml' '*.toml' | xargs $(BIN)/codespell --ignore-words-list convertors,dependant --dictionary - --dictionary docs/words.txt

.PHONY: hooks
hooks: install  ## git hooks that check each commit; they need pre-commit (pipx install pre-commit)
	pre-commit install

.PHONY: types
types: install  ## mypy --strict
	$(BIN)/mypy

.PHONY: bench
bench: install  ## everything beside its peers, about an hour; one part with ONLY=drain, sizes with OPTIONS='--events 60000'
	$(BIN)/python -m bench $(ONLY) $(OPTIONS)

.PHONY: docs
docs: install  ## write docs/reference from the code, and build the documentation's site into build/site
	$(BIN)/python scripts/reference.py
	$(BIN)/mkdocs build --quiet

.PHONY: lock
lock: install  ## bring requirements.lock up to date with pyproject.toml; UPGRADE=1 takes the newest versions
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --quiet $(if $(UPGRADE),--upgrade) --output-file requirements.lock

.PHONY: audit
audit: install  ## look the lock up in the advisories of PyPI; exit 3 where they cannot be reached
	$(BIN)/python scripts/audit.py

.PHONY: sbom
sbom: install  ## what the image's Python packages are, as CycloneDX, into dist/
	@mkdir -p dist
	$(BIN)/python scripts/locked.py service page > dist/image.lock
	$(BIN)/cyclonedx-py requirements dist/image.lock --pyproject pyproject.toml --output-reproducible -o dist/sbom.json

.PHONY: tools
tools:  ## helm, for the tests of the chart; needs Go
	GOBIN=$(CURDIR)/.tools go install helm.sh/helm/v3/cmd/helm@v3.19.0

.PHONY: wheel
wheel: install  ## build the wheel and the sdist into dist/
	$(BIN)/python -m build --no-isolation --outdir dist .

.PHONY: image
image:  ## build the image with Docker, named with the project's version
	docker build --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) -t levelsync:$(VERSION) .

.PHONY: chart
chart:  ## package the Helm chart into dist/, with the project's version
	$(HELM) package deploy/helm/levelsync --version $(VERSION) --app-version $(VERSION) --destination dist

.PHONY: release
release: wheel sbom chart  ## everything that is published, into dist/; `make image` needs Docker besides
	@ls -l dist
