# `make demo` and `make test` need nothing but Python >= 3.11: the first call installs, later ones do not.
# Another interpreter: make demo PYTHON=python3.12
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test golden test-slurm testbed testbed-down docs api lint help
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

demo: $(INSTALLED) ## run the whole ablation on the embedded benchmark and print its table
	@echo "==> snakemake --configfile config/demo.yaml: render people, train, extract, retrieve, tabulate"
	$(BIN)/snakemake --configfile config/demo.yaml
	@echo "==> the table, also in results/demo/tables"
	$(BIN)/reid table --configfile config/demo.yaml

test: $(INSTALLED) ## run all tests but those on a real Slurm
	@echo "==> pytest: every test but tests/slurm, two at a time"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/slurm $(ONLY)

test-slurm: $(INSTALLED) ## run the tests on a real Slurm: the testbed, which is started and stopped
	@echo "==> pytest tests/slurm: several at a time, they mostly wait"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.slurm.testbed run $(BIN)/python -m pytest tests/slurm -n 6 --dist loadgroup $(ONLY)

golden: $(INSTALLED) ## renew the recorded numbers of the smallest experiment, after a change on purpose
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.golden

testbed: $(INSTALLED) ## start a real Slurm on this machine to test on (root, Debian's slurm-wlm and munge)
	$(BIN)/python -m tests.slurm.testbed up

testbed-down: $(INSTALLED) ## stop it and leave nothing behind
	$(BIN)/python -m tests.slurm.testbed down

lint: $(INSTALLED) ## check style, types and the workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint

docs: $(INSTALLED) ## regenerate config/README.md and the configuration's JSON schema
	$(BIN)/python -m reid.config.reference

api: $(INSTALLED) ## render the docstrings of the Python API into docs/api
	$(BIN)/python -m pdoc --docformat markdown --output-directory docs/api reid
	@echo "==> docs/api/reid.html"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is not Python >= 3.11: name one, for example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	  echo "error: $(PYTHON) cannot make virtual environments: on Debian or Ubuntu, apt install python3-venv" >&2; exit 1; }
	@echo "==> installing into $(VENV) (once; about 6 GB with the GPU libraries of torch)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
