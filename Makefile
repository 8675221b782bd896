# Everything runs in .venv, which is made from requirements.lock at the first call and again when it is out of date.
# PYTHON=python3.12 picks its Python (3.11 or newer); ARGS="..." goes on to the command that a target runs.
PYTHON ?=
ARGS ?=
BIN := .venv/bin
BENCHMARKS := article native import_time ranking preprocessing shards throughput against_als ml100k growth capacity

.DEFAULT_GOAL := help
.PHONY: help run test lab bench torture lint lock clean environment

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 14
	@echo '  Options: PYTHON=python3.12 (the Python of .venv), ARGS="..." (handed on: make run ARGS="--data my.csv")'

run: environment ## Run the numbered notebooks, one after the other
	@$(BIN)/interestkit run $(ARGS)

test: environment ## Run all tests, doctests and notebooks included
	@$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 $(ARGS)

lab: environment ## Open the notebooks in JupyterLab
	@$(BIN)/interestkit lab $(ARGS)

bench: environment ## Measure speed beside other packages, which get environments of their own (an hour)
	@sh benchmarks/peers/environment.sh
	@for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || exit 1; done
	@$(BIN)/python benchmarks/summary.py

torture: environment ## Kill, damage and fill the disk under what is saved (ten minutes; needs Linux and cc)
	@$(BIN)/python benchmarks/torture.py $(ARGS)

lint: environment ## Check style, imports between modules, and that notebooks hold no output
	@$(BIN)/ruff check $(ARGS)
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo
	@find notebooks -name .ipynb_checkpoints -prune -o -name '*.ipynb' -exec $(BIN)/nbstripout --verify --keep-id {} +

lock: ## Write requirements.lock anew (needs uv); ARGS=--upgrade takes the newest versions
	@uv pip compile pyproject.toml build.in --extra data --extra test --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet \
	  -o requirements.lock $(ARGS)

clean: ## Remove .venv and caches (results in runs/ stay)
	@rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find interestkit tests -name __pycache__ -exec rm -rf {} +

environment:
	@sh tools/environment.sh "$(PYTHON)"
