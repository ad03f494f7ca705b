# Two commands for a new user: `make export` and `make test`. Each makes the environment if it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: export test test-full lint bench precision instructions arm64 android swift clean

export: $(READY)
	$(BIN)/dmf-export --format all --out build --overwrite

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not full"

test-full: $(READY)
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.op_costs
	$(BIN)/python -m benchmarks.instructions --store
	$(BIN)/python -m benchmarks.readme

precision: $(READY)
	$(BIN)/python -m benchmarks.precision
	$(BIN)/python -m benchmarks.readme

instructions: $(READY)
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks.instructions

arm64: $(READY)
	$(BIN)/python -m runtime.arm64.setup

android: $(READY)
	$(BIN)/python -m android_demo.host.toolchain

swift: $(READY)
	$(BIN)/python -m ios_demo.host.toolchain

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "needs Python 3.11 to 3.13: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): about 5 GB, a few minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache
