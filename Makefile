.PHONY: help install run test lint types layers coverage generate check docs bench-config clean

BIN := .venv/bin
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed  ## Make .venv and install the project into it

.venv/.installed: pyproject.toml .ci/constraints.txt .ci/install
	.ci/install
	@touch $@

run: install  ## Run a DSA model on the text that ships with the project
	$(BIN)/dsa run

# A process for each core, with one thread each: two that each take all cores are slower than one.
test: install  ## Run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

lint: install  ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## Check types
	$(BIN)/mypy

layers: install  ## Check that imports follow the layers
	$(BIN)/lint-imports

check: lint types layers  ## Style, types and layers

# Without the tests that fork: a child inherits coverage's own lock, which another thread may hold.
coverage: install  ## Check that the tests of dsa_config run every line and branch of it
	$(BIN)/coverage run -m pytest -q tests/config --deselect tests/config/test_stress.py -k "not forked"
	$(BIN)/coverage report

generate: install  ## Write again what is generated: schemas/, docs/reference/
	$(BIN)/python -m dsa_exec.cli.generate

# Not with --quiet, under which mkdocs counts no warnings, so that nothing is strict. The variable leaves out a notice of
# the theme's authors about its successor.
docs: install  ## Build the site of docs/ into build/site, without the network; what leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench-config: install  ## Measure what reading a setting costs, ours beside others (their packages: the extra `bench`)
	$(BIN)/python benchmarks/config_reads.py --check

clean:  ## Remove the environment and what tools have left behind
	rm -rf .venv build .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
