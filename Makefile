# Two commands for newcomers: `make demo` and `make test`. Everything lands in .venv; nothing is installed elsewhere.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo serve test check format lock lab lab-card clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.demo: requirements/demo.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Fairlead into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/demo.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing what the tests need into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.demo ## the main job in under 3 minutes: real models, a gateway, a router that learns
	@$(BIN)/fairlead demo

serve: $(VENV)/.demo ## the demo's gateway, left running
	@$(BIN)/fairlead demo --serve

test: $(VENV)/.dev ## install what tests need and run them
	@$(BIN)/python -m pytest

check: $(VENV)/.dev ## linters, formatter, strict types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev ## put the code in shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: ## resolve the pinned dependencies again
	@test -x .venv-lock/bin/uv || ($(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv)
	@mkdir -p requirements
	@for set in demo dev; do .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --extra $$set pyproject.toml -o requirements/$$set.lock; done

lab: ## train the tiny models and their crew again (about three hours; resumable)
	@test -x .venv-lab/bin/python || ($(PYTHON) -m venv .venv-lab && .venv-lab/bin/pip install --quiet 'torch==2.13.0' numpy msgspec pyyaml tqdm pyarrow)
	@PYTHONPATH=src .venv-lab/bin/python -m fairlead.lab.train
	@PYTHONPATH=src .venv-lab/bin/python -m fairlead.lab.card
	@PYTHONPATH=src .venv-lab/bin/python -m fairlead.lab.eye
	@PYTHONPATH=src .venv-lab/bin/python -m fairlead.lab.train_crew
	@PYTHONPATH=src .venv-lab/bin/python -m fairlead.lab.crew_card

clean: ## remove what the other commands made
	rm -rf $(VENV) .venv-lock .venv-lab .mypy_cache .ruff_cache .pytest_cache run
