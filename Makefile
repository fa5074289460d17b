# `make serve` and `make test` need Python 3.11 or newer and nothing else; both build .venv first.
# Variables: PYTHON (interpreter), WORLD and ARGS (for serve), TORCH (another torch release), PIP_FLAGS (for every pip).

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do command -v $$name && break; done)
WORLD ?=
ARGS ?=
TORCH ?=
PIP_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS) \
      --constraint $(VENV)/constraints.txt $(if $(TORCH),torch==$(TORCH))
# What the page's tools need; in a shell, true where it is there.
NEW_NODE = command -v npm >/dev/null && \
           node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)'
WEB := clients/web

.DEFAULT_GOAL := help
.PHONY: help serve install develop test toys check lint format web clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

serve: $(VENV)/serve.stamp ## serve the shipped worlds and print the address (WORLD=pong ARGS="--port 8000")
	@$(BIN)/lightcone serve $(if $(WORLD),--world $(WORLD)) $(ARGS)

install: $(VENV)/serve.stamp ## what serving needs, in .venv

develop: $(VENV)/develop.stamp ## what training, testing and checking need as well

test: $(VENV)/develop.stamp ## the tests that need no GPU and no patience
	@$(BIN)/python -m pytest -m "not slow and not gpu" $(ARGS)

toys: $(VENV)/develop.stamp ## trains distillation methods on one density and looks at their samples: a quarter of an hour
	@$(BIN)/python -m pytest -m toy --numprocesses auto --dist worksteal $(ARGS)

check: lint ## what CI runs: format, lint, types, generated files, the page, then the tests and the toys
	@if $(NEW_NODE); then $(MAKE) --no-print-directory web; \
	 else echo "no npm with Node 20.19 or newer: the built page is compared with its sources by the tests only"; fi
	@$(MAKE) --no-print-directory test toys

lint: $(VENV)/develop.stamp ## format, lint, types, Dockerfile, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/python $(WEB)/generate_protocol.py --check

web: ## types, unit tests and freshness of the page (needs Node)
	npm --prefix $(WEB) ci --no-audit --no-fund
	npm --prefix $(WEB) run verify

format: $(VENV)/develop.stamp ## put the sources into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv and the caches
	rm -rf $(VENV) build *.egg-info clients/python/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf $(WEB)/node_modules

# The stamps record that an install finished, so that the next call of make is instant.
$(VENV)/serve.stamp: pyproject.toml clients/python/pyproject.toml constraints.txt
	@echo "Installing Lightcone into $(VENV) (the first time takes minutes: torch is large)"
	@test -n "$(PYTHON)" || { echo "No Python found: install Python 3.11 or newer, or give one: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	 { echo "$(PYTHON) is older than Python 3.11: install a newer one and give it: make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	 { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment: on Debian, apt-get install python3-venv"; exit 1; }
	@grep -v $(if $(TORCH),'^torch==','^#') constraints.txt > $(VENV)/constraints.txt
	@$(PIP) --editable . --editable clients/python
	@touch $@

$(VENV)/develop.stamp: $(VENV)/serve.stamp
	@echo "Installing what tests and training need"
	@$(PIP) --editable '.[data,train,bench,dev]' --editable clients/python
	@touch $@
