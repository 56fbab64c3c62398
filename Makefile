# Each target sets everything up by itself: a virtual environment in .venv with an editable install.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: benchmark test help
help:
	@echo "make benchmark   score Bicubic, Regression, SR3 and ESRGAN on the embedded photographs: runs/quickstart/report.html"
	@echo "make test        lint, types and tests"

benchmark: .venv/installed
	$(BIN)/python benchmark.py run configs/quickstart.toml --out runs/quickstart

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv > /dev/null 2>&1 || { rm -rf .venv; echo "Python's venv module is missing (Debian: apt-get install python3-venv)"; exit 1; }

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[offline]'
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[all,dev]'
	@touch $@ .venv/installed
