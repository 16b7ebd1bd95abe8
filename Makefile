# The ways into this repository. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test check test-all test-torch bench mutants generate lock clean
BIN := .venv/bin
# One sitting: what is neither long nor needs PyTorch.
ONE_SITTING := not long and not torch
PYTEST_ARGS :=
UV := .cache/uv/bin/uv
COMPILE := pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet

help: ## list these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: ## make the environment in .venv: locked, hashed, without PyTorch
	@tools/setup.sh .venv requirements.lock

demo: setup ## speech through Kafka and back as captions, until Ctrl-C; EXIT=1 ends by itself with a summary
	@$(BIN)/kaption demo $(if $(EXIT),--exit)

test: setup ## every test of one sitting
	@$(BIN)/pytest -m "$(ONE_SITTING)" $(PYTEST_ARGS)

check: setup ## the whole gate: format, lint, types, layers, generated files, tests
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: run $(BIN)/ruff format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@mkdir -p .cache && $(BIN)/lint-imports > .cache/lint-imports.log || { cat .cache/lint-imports.log; exit 1; }
	@$(BIN)/python -m tools.generate --check
	@$(BIN)/pytest -m "$(ONE_SITTING)" $(PYTEST_ARGS)

test-all: setup ## also the long ones: every fault on every broker
	@$(BIN)/pytest -m "not torch" $(PYTEST_ARGS)

test-torch: ## the PyTorch backend's, in an environment of its own (large)
	@tools/setup.sh .venv-torch requirements-torch.lock
	@.venv-torch/bin/pytest -m torch

bench: setup ## the short benchmarks, on a quiet machine (13 minutes, ten more the first time), and a table of goals, figures and peers
	@$(BIN)/python -m bench

mutants: setup ## take each guard of tests/mutants.toml away and see its test go red
	@$(BIN)/python -m tools.mutants

generate: setup ## write the schemas, asyncapi.yaml and docs/operations.md again
	@$(BIN)/python -m tools.generate

lock: $(UV) ## resolve the dependencies again
	@$(UV) $(COMPILE) --group dev --extra streams --extra gpu --extra embedded --extra demo -o requirements.lock
	@$(UV) $(COMPILE) --group dev --extra streams --extra gpu --extra embedded --extra demo --extra torch -o requirements-torch.lock

$(UV):
	@python3 -m venv .cache/uv && .cache/uv/bin/pip install --quiet --only-binary :all: uv==0.13.9 2> .cache/uv.log

clean: ## remove the environments and caches
	@rm -rf .venv .venv-torch .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
