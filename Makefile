# make fit    install the project into .venv and train on a small sample
# make check  lint, check formatting and types, and compare the locked packages with known vulnerabilities (skipped,
#             with a message, if there is no network)
# make test   run the tests that need no other processes and no browser: minutes on 2 cores
# make test-slow  run the others; those of web pages need Chromium (apt-get install chromium) and are skipped without
#             it, or fail without it if REQUIRE_BROWSER=1 is set
# make lock   resolve the dependencies again (needs uv)
# make test-lowest  run all tests with the oldest dependencies that pyproject.toml allows (needs uv)

PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

# one worker per core, each of one thread; more than 4 would mostly import torch
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: fit check test test-slow lock test-lowest

fit: .venv/installed
	$(BIN)/python -m project fit --config configs/resnet.yaml --config configs/sample.yaml --model.network.depth 20

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/audit.py requirements.lock requirements-dev.lock

test: .venv/installed-dev
	$(PYTEST) -m "not slow" --durations 10

test-slow: .venv/installed-dev
	$(PYTEST) -m slow --durations 10

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 15) or sys.exit( \
		f"Expected Python 3.11 to 3.14, but {sys.executable} is {v[0]}.{v[1]}. Use make fit PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.lock
	$(BIN)/python -m pip install --require-hashes -r requirements-dev.lock
	@touch $@

COMPILE := uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --upgrade
DEV := import tomllib; print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["dev"]))

lock:
	$(COMPILE) pyproject.toml --output-file requirements.lock
	python3 -c '$(DEV)' | $(COMPILE) - --constraint requirements.lock --output-file requirements-dev.lock

test-lowest:
	uv venv --clear --python 3.11 .venv-lowest
	uv pip install --python .venv-lowest --resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/python -m pytest
