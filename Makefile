# `make serve` and `make test` need only Python 3.11 or newer; both create .venv first.
# Variables: PYTHON (interpreter), WORLD and ARGS (for serve; ARGS also for test and toys), TORCH (another torch release),
# PIP_FLAGS (for every call of pip).

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do command -v $$name && break; done)
WORLD ?=
ARGS ?=
TORCH ?=
PIP_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
# pip shows its progress on a terminal only.
PIP_QUIET := $(shell test -t 2 || echo --quiet)
PIP = $(BIN)/python -m pip --disable-pip-version-check install $(PIP_QUIET) $(PIP_FLAGS) \
      --constraint $(VENV)/constraints.txt $(if $(TORCH),torch==$(TORCH))
# Shell command that succeeds if npm and a Node new enough for the page's tools are installed.
NEW_NODE = command -v npm >/dev/null && \
           node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)'
WEB := clients/web

# Tests run on all cores; each is scheduled by itself, so that a long file does not hold up the end.
PARALLEL := --numprocesses auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help serve install develop test toys check lint format web clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

serve: $(VENV)/serve.stamp ## serve the shipped worlds and print the address (WORLD=pong ARGS="--port 8000")
	@$(BIN)/lightcone serve $(if $(WORLD),--world $(WORLD)) $(ARGS)

install: $(VENV)/serve.stamp ## install what serving needs into .venv

develop: $(VENV)/develop.stamp ## also install what training, tests and checks need

test: $(VENV)/develop.stamp ## run the tests that are fast and need no GPU, on all cores
	@$(BIN)/python -m pytest -m "not slow and not gpu" $(PARALLEL) $(ARGS)

toys: $(VENV)/develop.stamp ## train every distillation method, and a sabotaged variant of each, at full size (long)
	@$(BIN)/python -m pytest -m toy $(PARALLEL) $(ARGS)

check: lint ## run everything that CI runs: format, lint, types, generated files, the page, tests and quick toys
	@if $(NEW_NODE); then $(MAKE) --no-print-directory web; \
	 else echo "no npm with Node 20.19 or newer: skipping the checks of the page, except the freshness test"; fi
	@$(BIN)/python -m pytest -m "quick_toy or not (slow or gpu)" $(PARALLEL) $(ARGS)

lint: $(VENV)/develop.stamp ## check format, lint, types, Dockerfile and generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/python $(WEB)/generate_protocol.py --check

web: ## check the page's types, unit tests and freshness (needs Node)
	npm --prefix $(WEB) ci --no-audit --no-fund
	npm --prefix $(WEB) run verify

format: $(VENV)/develop.stamp ## format the sources and fix lint errors
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv and the caches
	rm -rf $(VENV) build *.egg-info clients/python/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf $(WEB)/node_modules

# The stamp files record completed installs, so that the next call of make does nothing.
$(VENV)/serve.stamp: pyproject.toml clients/python/pyproject.toml constraints.txt
	@echo "Installing Lightcone into $(VENV) (the first time takes minutes: torch is large)"
	@test -n "$(PYTHON)" || { echo "No Python found: install Python 3.11 or newer, or run make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	 { echo "$(PYTHON) is older than Python 3.11: install a newer one, or run make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	 { rm -rf $(VENV); echo "$(PYTHON) cannot create a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@grep -v $(if $(TORCH),'^torch==','^#') constraints.txt > $(VENV)/constraints.txt
	@$(PIP) --editable . --editable clients/python
	@touch $@

$(VENV)/develop.stamp: $(VENV)/serve.stamp
	@echo "Installing the requirements of tests and training"
	@$(PIP) --editable '.[data,bench,dev]' --editable clients/python
	@touch $@
