# Two commands for newcomers: `make demo` and `make test`. Everything lands in .venv; nothing is installed elsewhere.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The extras that the image has.
IMAGE  := gateway otel postgres redis rules
SBOM   ?= build/sbom.cdx.json
COMPILE = .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --no-header

.DEFAULT_GOAL := help
.PHONY: peers help demo serve test check format lock docs clients sbom deploy-tools manifests lab lab-card clean

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
	@$(COMPILE) --extra dev pyproject.toml -o requirements/dev.lock
	@# What is shown and served from is what was tested: the rest takes the versions of dev.lock. And demo and dev share an environment.
	@$(COMPILE) -c requirements/dev.lock --extra demo pyproject.toml -o requirements/demo.lock
	@$(COMPILE) -c requirements/dev.lock $(addprefix --extra ,$(IMAGE)) pyproject.toml -o requirements/gateway.lock
	@$(COMPILE) -c requirements/dev.lock requirements/build.in -o requirements/build.lock
	@for set in clients deploy docs sbom; do $(COMPILE) requirements/$$set.in -o requirements/$$set.lock || exit 1; done

docs: $(VENV)-docs/.done ## the docs site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet --clean

clients: $(VENV)/.dev $(VENV)-clients/.done ## the clients of others against a served gateway (300 MB)
	@$(BIN)/python benchmarks/clients.py --check

sbom: $(VENV)-sbom/.done ## what the image is made of, as CycloneDX in build/sbom.cdx.json
	@mkdir -p $(dir $(SBOM))
	@$(VENV)-sbom/bin/python -W ignore -m cyclonedx_py requirements --output-reproducible --pyproject pyproject.toml \
	  --mc-type application --of JSON -o $(SBOM) requirements/gateway.lock
	@echo "wrote $(SBOM)"

deploy-tools: $(VENV)-deploy/.done ## what checks the image, the chart and the manifests (100 MB)

manifests: $(VENV)-deploy/.done ## deploy/kubernetes from the chart
	@$(VENV)-deploy/bin/python deploy/render.py > deploy/kubernetes/fairlead.yaml.new
	@mv deploy/kubernetes/fairlead.yaml.new deploy/kubernetes/fairlead.yaml

$(VENV)-%/.done: requirements/%.lock
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@echo "installing what $* needs into $(@D) (once)"
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

peers: ## other gateways, to measure beside ours: into .venv-peers
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check 'sglang-router==0.3.2' 'litellm[proxy]'

lab: ## train the tiny models and their crew again (about three hours; resumable)
	@test -x .venv-lab/bin/python || ($(PYTHON) -m venv .venv-lab && .venv-lab/bin/pip install --quiet 'torch==2.13.0' numpy msgspec pyyaml tqdm pyarrow)
	@PYTHONPATH=src .venv-lab/bin/python -m fairlead.lab.train
	@PYTHONPATH=src .venv-lab/bin/python -m fairlead.lab.card
	@PYTHONPATH=src .venv-lab/bin/python -m fairlead.lab.eye
	@PYTHONPATH=src .venv-lab/bin/python -m fairlead.lab.train_crew
	@PYTHONPATH=src .venv-lab/bin/python -m fairlead.lab.crew_card

clean: ## remove what the other commands made
	rm -rf $(VENV) .venv-lock .venv-lab .venv-docs .venv-sbom .venv-deploy .venv-clients build .mypy_cache .ruff_cache .pytest_cache run
