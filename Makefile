# `make` lists the targets. Everything runs in an environment of its own, .venv, which is made on first use.
# PYTHON is the interpreter to make it with (3.10 or later): make venv PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= train,dev
DEMO := experiments/quickstart_distill
MODEL := models/net_g_latest.safetensors

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help venv demo test lint bench clean

help:
	@echo "make demo    train and distil a small student on photographs at hand (a few minutes), enlarge one with it"
	@echo "make test    checks of style and types, then all tests"
	@echo "make lint    the checks of style and types alone"
	@echo "make bench   speed as ratios, both sides in the same run"
	@echo "make venv    the environment alone (installs torch: several GB)"
	@echo "make clean   remove the environment and what tools left behind; data and experiments stay"

venv: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[$(EXTRAS)]"
	touch $@

# One thread: the patches are so small that on a busy machine threads mostly wait for each other.
demo: $(INSTALLED)
	$(BIN)/imdn-kd prepare sample sample_valid --scale 2
	OMP_NUM_THREADS=1 $(BIN)/imdn-kd train -opt options/quickstart.yml --auto_resume
	OMP_NUM_THREADS=1 $(BIN)/imdn-kd train -opt options/quickstart_distill.yml --auto_resume
	$(BIN)/imdn-kd upscale datasets/sample_valid/LRbicx2/coffeex2.png --output $(DEMO)/coffee_sr.png --model $(DEMO)/$(MODEL) --overwrite
	$(BIN)/imdn-kd benchmark --model bicubic --model experiments/quickstart/$(MODEL) --model $(DEMO)/$(MODEL) --data sample_valid --scale 2

# One thread a worker: threads of several workers on the same cores wait for each other.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
