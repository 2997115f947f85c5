# make demo: the main job on a fresh machine.  make test: the tests.  make check: format, lint, types, rooms.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := setup.py pyproject.toml $(wildcard kernels/pchmr_kernels/native/*)

.PHONY: demo test test-all check format bench gpu-check clean

demo: $(VENV)/.runtime
	$(BIN)/pchmr demo --out out

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup -m "not slow and not gpu"

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/check_tensorrt_api.py
	$(BIN)/python -m pytest --quiet tests/test_rooms.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/blend.py
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/overlay.py
	$(BIN)/python benchmarks/streaming.py

# From the source tree, with the Python that has torch and CuPy: PART=kernels|pipeline|sanitizer|training.
gpu-check:
	$(PYTHON) benchmarks/gpu_check.py $(PART)

clean:
	rm -rf $(VENV) build dist out

# The stamps are written last: an interrupted install is simply run again.
$(VENV)/.runtime: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[cpu,openvino,open]'
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[cpu,openvino,open,export,train,viewer,window,rerun,plot,rtx,dev]'
	touch $@
