# raypipe: everything a fresh machine with Python 3.11+ and make needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/contrastive/demo.yaml
# One thread a library: Ray gives every task as many as it has cores.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install bench gpu-input demo demo-record smoke test test-all test-slow test-lowest test-newest resolve release-check chaos lint format readme doctor clean study-multilepton study-contrastive study-variations study-first-look study-nulls study-figures study-haxad study-stats study-cms study-tail study-lhco bench-peers

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt setup.py raypipe/models/spline.c
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "raypipe needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

install: $(VENV)/.installed ## Make the environment (.venv) with the pinned versions

demo: install ## Run the main search on this machine: runs/demo/report.html (4 to 7 minutes, then seconds)
	$(BIN)/raypipe scan --config $(CONFIG)

demo-record: demo ## The record of `make demo`, made on a quiet machine in an empty runs/demo
	$(BIN)/python -m tests.search.record_contrastive runs/demo demo

smoke: install ## The demo, tiny: every stage through the real command line in a few minutes
	$(BIN)/python -m pytest tests/test_end_to_end.py

test: install ## Run the tests that find most faults (5 to 8 minutes)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not long and not ray"
	$(BIN)/python -m pytest -m "not slow and not long and ray"

test-all: test ## Run the long tests too: whole runs, dying nodes, many toys (about half an hour more)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and long and not ray"
	$(BIN)/python -m pytest -m "not slow and long and ray"

test-slow: install ## Run the long statistical studies
	$(BIN)/python -m pytest -m slow

# Environments of their own, made anew each time: some gigabytes, and the tests that need no Ray.
test-lowest test-newest: test-%:
	rm -rf $(VENV)-$* && $(PYTHON) -m venv $(VENV)-$*
	if [ $* = lowest ]; then $(PYTHON) -m tests.bounds; fi > $(VENV)-$*/constraints.txt
	$(VENV)-$*/bin/python -m pip install --quiet --constraint $(VENV)-$*/constraints.txt --editable '.[test]'
	$(VENV)-$*/bin/python -m pytest -m "not slow and not long and not ray"
test-lowest: ## The quick tests with the oldest series of every dependency that pyproject.toml allows
test-newest: ## The same with the newest

resolve: install ## Whether constraints.txt resolves for Python 3.11, 3.12 and 3.13; nothing is installed
	$(BIN)/python -m tests.release --resolve 3.11 3.12 3.13

release-check: install ## Version, changelog, and the wheel in an empty environment: kernels, package data, commands
	$(BIN)/python -m tests.release

study-contrastive: install ## Paper C beside its comparisons (over an hour; resumes), and its record
	$(BIN)/raypipe scan --config configs/contrastive/study.yaml
	$(BIN)/python -m tests.search.record_contrastive runs/study-contrastive

study-variations: install ## The demo's search where data are not as simulated (half an hour; resumes), and its record
	$(BIN)/raypipe scan --config configs/contrastive/variations.yaml
	$(BIN)/python -m tests.search.record_contrastive runs/variations variations

SEED ?=
NULLS ?= 10000
study-first-look: install ## Papers C and A on a seed that nobody has looked at, once (hours; resumes): make study-first-look SEED=...
	@test -n "$(SEED)" || { echo "say which: make study-first-look SEED=<a seed that no study has used>"; exit 1; }
	$(BIN)/raypipe scan --config configs/contrastive/first_look.yaml seed=$(SEED)
	$(BIN)/python -m tests.search.record_contrastive runs/first-look-contrastive contrastive_first_look
	$(BIN)/raypipe scan --config configs/haxad/first_look.yaml seed=$(SEED)
	$(BIN)/python -m tests.search.record_haxad runs/first-look-haxad haxad_first_look

study-nulls: install ## Papers C and A without a signal, 200 and 28 simulated sets and thousands of pseudo-nulls (hours; resumes)
	$(BIN)/raypipe calibrate --config configs/contrastive/nulls.yaml --nulls $(NULLS) --retrain 40 --simulated 200
	$(BIN)/python -m tests.search.record_nulls configs/contrastive/nulls.yaml nulls
	$(BIN)/raypipe calibrate --config configs/haxad/nulls.yaml --nulls 300 --simulated 28
	$(BIN)/python -m tests.search.record_nulls configs/haxad/nulls.yaml haxad_nulls

study-tail: install ## Paper C without a signal: ten thousand pseudo-nulls of a small search (hours; resumes), and their record
	$(BIN)/raypipe calibrate --config configs/contrastive/tail.yaml --nulls $(NULLS) --retrain 40 --simulated 20
	$(BIN)/python -m tests.search.record_nulls configs/contrastive/tail.yaml nulls_tail

study-figures: install ## Paper C's figures 4 to 7 at full grids (over two hours; resumes), and their record
	for f in fig4_in_distribution fig5_interpolation fig6_extrapolation fig7_required_injection; do \
		$(BIN)/raypipe scan --config configs/contrastive/figures/$$f.yaml || exit 1; \
	done
	$(BIN)/python -m tests.search.record_figures runs/figures

study-haxad: install ## Paper A: false positives, linearity, benchmarks (an hour; resumes), and its record
	$(BIN)/raypipe scan --config configs/haxad/laptop.yaml
	$(BIN)/python -m tests.search.record_haxad runs/haxad

study-stats: install ## Pulls, coverage, local and global p of fits and hunts (minutes), and their record
	$(BIN)/python -m tests.stats.record

study-cms: install ## CMS's four-lepton spectrum over our simulation of it (minutes), and its record
	$(BIN)/raypipe simulate --config configs/fourlepton/cms_run1.yaml
	$(BIN)/python -m tests.simulate.fourlepton.record_cms runs/cms_run1/events

study-lhco: install ## `raypipe classify` beside scikit-learn on the LHC Olympics arrays (an hour; resumes), and its record
	nice -n 5 $(BIN)/python -m tests.fit.record_lhco

study-multilepton: install ## Paper B's figures, limits and calibration (half an hour; resumes), and their record
	$(BIN)/raypipe scan --config configs/multilepton/laptop.yaml
	$(BIN)/python -m tests.search.record runs/multilepton

chaos: install ## Scans of two searches under random SIGKILLs of workers, a node and the driver, against undisturbed ones
	@$(BIN)/python -m tests.cluster.chaos

gpu-input: install ## Simulate and pack the events that jobs/gpu_record.py carries to a GPU: runs/gpu/events.npz (20 minutes)
	$(BIN)/raypipe simulate --config configs/contrastive/gpu.yaml
	$(BIN)/python jobs/gpu_record.py --pack runs/gpu/events --input runs/gpu/events.npz

bench: install ## Measure every stage against its plain counterpart (about 20 minutes): runs/bench/bench.json
	$(BIN)/python jobs/bench
	$(BIN)/python jobs/bench --table

bench-peers: install ## Whole searches against a script of zuko and scikit-learn (under 15 minutes), and their record
	$(BIN)/python jobs/bench peers --output runs/bench/record
	cp runs/bench/record/bench.json tests/records/peers.json

lint: install ## Check style, and the types of the public modules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

readme: install ## Write the tables and numbers of every README from tests/records, and its picture
	$(BIN)/python -m tests.readme

doctor: install ## Check this machine and say how to mend it
	$(BIN)/raypipe doctor --config $(CONFIG)

clean: ## Remove the environment and all runs
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest runs build *.egg-info
