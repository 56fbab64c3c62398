# Each target sets everything up by itself: a virtual environment in .venv with an editable install.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: benchmark study whole-study texts test test-lowest help
help:
	@echo "make benchmark   score Bicubic, Regression, SR3 and ESRGAN on the embedded photographs: runs/quickstart/report.html"
	@echo "make study       serve a demonstration study of 40 photographs: http://localhost:$(PORT)/s/demo_task1"
	@echo "make whole-study pictures, study, 102 simulated people, analysis, report: what notebook 05 does"
	@echo "make texts       bring study_app/locale up to date with the texts that subjects read"
	@echo "make docs        the documentation as a site: docs/_build/index.html"
	@echo "make test        lint, types and tests"
	@echo "make test-lowest a part of the tests with the lowest releases that pyproject.toml names"

QUICKSTART := $(BIN)/python benchmark.py run configs/quickstart.toml --out runs/quickstart
benchmark: .venv/installed
	$(QUICKSTART)

runs/quickstart/report.html: | .venv/installed
	$(QUICKSTART)

# Answers lie in runs/demo_study: nothing below is made again while it is there.
DEMO := runs/demo_study
PORT ?= 5000
FLASK := $(BIN)/flask --app study_app
study $(DEMO)/ready: export STUDY_DATABASE_URL := sqlite:///$(CURDIR)/$(DEMO)/study.sqlite

study: $(DEMO)/ready | .venv/installed-study
	@echo "Task-1: http://localhost:$(PORT)/s/demo_task1   Task-2: http://localhost:$(PORT)/s/demo_task2   Ctrl-C stops."
	@echo "Answers so far: STUDY_DATABASE_URL=$$STUDY_DATABASE_URL $(FLASK) study export demo_task1 --out responses.csv"
	@$(FLASK) run --port $(PORT)

$(DEMO)/run/report.html: | .venv/installed
	$(BIN)/python benchmark.py run configs/demo_study.toml --out $(DEMO)/run

$(DEMO)/pack: | $(DEMO)/run/report.html
	$(BIN)/python benchmark.py stimuli $(DEMO)/run --out $@ --method regression --method sr3

$(DEMO)/ready: | $(DEMO)/pack .venv/installed-study
	rm -f $(DEMO)/study.sqlite*
	@for study in demo_task1 demo_task2; do \
		$(FLASK) study create $(DEMO)/pack --study $$study && $(FLASK) study freeze $$study && $(FLASK) study run $$study || exit; \
	done
	@touch $@

whole-study: .venv/installed-all
	$(BIN)/jupyter execute analysis/notebooks/05_whole_study.ipynb
	@ls -d runs/whole_study_* | tail -1

# Texts that subjects read, as templates and Python now have them, into the catalogs; new ones are to be translated there.
texts: .venv/installed-study
	@pot=$$(mktemp) && \
	$(BIN)/pybabel --quiet extract --mapping-file pyproject.toml --no-location --sort-output --output $$pot . && \
	for catalog in study_app/locale/*.po; do \
		$(BIN)/pybabel --quiet update --input-file $$pot --output-file $$catalog --locale $$(basename $$catalog .po) --width 120 \
			--no-fuzzy-matching --ignore-obsolete --ignore-pot-creation-date || exit; \
	done; rm -f $$pot

docs: .venv/installed-docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build

# One thread: threads that share cores with other work wait for each other in loops, a hundred times as long at worst.
test: export OMP_NUM_THREADS := 1
test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# The study's pages and pyiqa's metrics need more than the extra `test`.
LOWEST := tests/contracts tests/methods tests/metrics tests/weights tests/benchmark/test_run.py tests/benchmark/test_table.py \
	tests/benchmark/test_report.py tests/benchmark/test_kernels.py tests/benchmark/test_set_cards.py tests/test_images.py \
	tests/test_config.py tests/test_data.py tests/analysis/test_fool_rate.py tests/analysis/test_figures.py tests/analysis/test_tables.py
test-lowest: export OMP_NUM_THREADS := 1
test-lowest: .venv/installed-dev
	$(BIN)/uv pip compile --quiet pyproject.toml --extra all --extra test --resolution lowest-direct \
		--python-version "$$($(BIN)/python -c 'import platform; print(platform.python_version())')" --output-file .venv-lowest.txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip sync --quiet --python .venv-lowest/bin/python .venv-lowest.txt
	$(BIN)/uv pip install --quiet --python .venv-lowest/bin/python --no-deps --editable .
	.venv-lowest/bin/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/metrics/test_zoo.py -k "not pyiqa and not brisque" $(LOWEST)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv > /dev/null 2>&1 || { rm -rf .venv; echo "Python's venv module is missing (Debian: apt-get install python3-venv)"; exit 1; }

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[offline]'
	@touch $@

.venv/installed-study: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[offline,study]'
	@touch $@ .venv/installed

.venv/installed-all: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[all]'
	@touch $@ .venv/installed .venv/installed-study

.venv/installed-docs: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[all,docs]'
	@touch $@ .venv/installed .venv/installed-study .venv/installed-all

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable '.[all,dev]'
	@touch $@ .venv/installed .venv/installed-study .venv/installed-all .venv/installed-docs
