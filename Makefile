# Set-up, checks and the demonstration. The first call makes .venv; later calls reuse it until pyproject.toml changes.

PYTHON ?= python3
PYTEST_ARGS ?=

BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint

help:  ## List what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "PYTHON=python3.12 chooses the Python that .venv is made with; PYTEST_ARGS='-k cbam --no-cov' narrows make test."

demo: $(READY)  ## Train, test and explain on the embedded data set, into demo/
	$(BIN)/temporal-attn demo --out demo

test: $(READY)  ## Run every test; fails under 85 % line coverage
	$(BIN)/python -m pytest --numprocesses=auto --dist=loadscope --cov=temporal_attn --cov=datamodules --cov-fail-under=85 $(PYTEST_ARGS)

lint: $(READY)  ## Check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# --clear heals a .venv whose Python is gone or whose making was cut short; a whole one is never made anew.
# pip 23 is the oldest that is known to install the wheels and an editable checkout.
$(READY): pyproject.toml
	$(if $(shell $(PYTHON) -c 'import sys; print("new enough" if sys.version_info >= (3, 10) else "")' 2>/dev/null),,\
		$(error $(PYTHON) is not Python 3.10 or newer: name one that is, as in make test PYTHON=python3.12))
	@echo "Setting up .venv; the first time, PyTorch is a download of several GB"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet 'pip>=23'
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@
