# raypipe: everything a fresh machine with Python 3.11+ and make needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/contrastive/laptop.yaml
# One thread a library: Ray gives every task as many as it has cores.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install bench gpu-input demo smoke test test-slow chaos lint format readme doctor clean study-multilepton study-contrastive study-first-look study-figures study-haxad study-stats

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt setup.py raypipe/models/spline.c
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
		|| { echo "raypipe needs Python 3.11 or 3.12: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

install: $(VENV)/.installed ## Make the environment (.venv) with the pinned versions

demo: install ## Run the main search on this machine: runs/demo/report.html (about 9 minutes, then seconds)
	$(BIN)/raypipe scan --config $(CONFIG)

smoke: install ## The demo, tiny: every stage through the real command line in a few minutes
	$(BIN)/python -m pytest tests/test_end_to_end.py

test: install ## Run the tests (about 25 minutes)
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not ray"
	$(BIN)/python -m pytest -m "not slow and ray"

test-slow: install ## Run the long statistical studies
	$(BIN)/python -m pytest -m slow

study-contrastive: install ## Paper C beside its comparisons (over an hour; resumes), and its record
	$(BIN)/raypipe scan --config configs/contrastive/study.yaml
	$(BIN)/python -m tests.search.record_contrastive runs/study-contrastive

SEED ?=
study-first-look: install ## Papers C and A on a seed that nobody has looked at, once (hours; resumes): make study-first-look SEED=...
	@test -n "$(SEED)" || { echo "say which: make study-first-look SEED=<a seed that no study has used>"; exit 1; }
	$(BIN)/raypipe scan --config configs/contrastive/first_look.yaml seed=$(SEED)
	$(BIN)/python -m tests.search.record_contrastive runs/first-look-contrastive contrastive_first_look
	$(BIN)/raypipe scan --config configs/haxad/laptop.yaml seed=$(SEED) output=runs/first-look-haxad
	$(BIN)/python -m tests.search.record_haxad runs/first-look-haxad haxad_first_look

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

study-multilepton: install ## Paper B's figures, limits and calibration (half an hour; resumes), and their record
	$(BIN)/raypipe scan --config configs/multilepton/laptop.yaml
	$(BIN)/python -m tests.search.record runs/multilepton

chaos: install ## Scans of two searches under random SIGKILLs of workers, a node and the driver, against undisturbed ones
	@$(BIN)/python -m tests.cluster.chaos

gpu-input: install ## Simulate and pack the events that jobs/gpu_record.py carries to a GPU: runs/gpu/events.npz (20 minutes)
	$(BIN)/raypipe simulate --config configs/contrastive/gpu.yaml
	$(BIN)/python jobs/gpu_record.py --pack runs/gpu/events --input runs/gpu/events.npz

bench: install ## Measure every stage against its plain counterpart (under 15 minutes): runs/bench/bench.json
	$(BIN)/python jobs/bench
	$(BIN)/python jobs/bench --table

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
	rm -rf $(VENV) runs build *.egg-info
