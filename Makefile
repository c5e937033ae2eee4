# Two commands: `make quickstart` (the main job on real dialogues) and `make test` (lint, types, the whole test suite).
# `make bench` measures docs/performance.md anew.
# Both make .venv first; a second run installs nothing again.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m g2r_lightning

.PHONY: install quickstart quickstart-seeds coverage test test-slow lint types unit format sample bench clean help test-browser study study-small study-small-factors study-check stored-study faults audit

help:
	@echo "make quickstart   train a student on the shipped sample and compare it with the untrained one (under 4 minutes)"
	@echo "make test         lint, types and tests"
	@echo "make quickstart-seeds  the quickstart on three seeds, into docs/results/quickstart.md"
	@echo "make coverage     simulate how often compare's intervals hold the truth, into docs/results (minutes)"
	@echo "make sample       choose the sample's dialogues again and make its teacher and candidate store (about 1 hour)"
	@echo "make bench        time every job beside its peers (40 minutes on two idle cores; SMALL=1: two; FULL=1: hours)"
	@echo "make study-small  the study on two CPU cores, G2R_DATA=folder of the data sets (hours; goes on where it stopped)"
	@echo "make study-small-factors  alpha, T, m, response set, negatives at the small study's size (three hours)"
	@echo "make study-check  the student held against its known figures (hours; goes on where it stopped)"
	@echo "make study        the whole study on a GPU, the student's check first"
	@echo "make fuzz         100,000 broken lines for every reader, into docs/results/fuzz.md"
	@echo "make fuzz-guided  the same readers by coverage, with Atheris, into docs/results/fuzz_guided.md"
	@echo "make long-run     a million responses, 20,000 contexts, 50 epochs: nothing may grow (docs/results/long_run.md)"
	@echo "make test-min     the tests with the oldest versions that setup.cfg allows"
	@echo "make test-browser the chat page and the page for raters in the system's chromium (apt-get install chromium)"
	@echo "make faults       break every command FAULTS=500 times and see that nothing is lost or wrong (half an hour)"
	@echo "make audit        known vulnerabilities of the installed packages (asks the package index)"
	@echo "make format       format the code"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: setup.cfg constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed

quickstart: $(VENV)/.installed
	$(RUN) fit -c experiments/quickstart.yaml

quickstart-seeds: $(VENV)/.installed
	$(BIN)/python benchmarks/quickstart_seeds.py

# How often the intervals of `compare` hold the truth, by simulation, into docs/results/bootstrap_coverage.md.
coverage: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bootstrap_coverage.py

test: $(VENV)/.installed-dev lint types unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# One thread a worker: two workers with two threads each on two cores wait for each other.
unit: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 $(BIN)/pytest -n 2 --dist worksteal $(PYTEST_FLAGS)

# What takes minutes: compilers, further processes, every student with every system, the commands of long documents.
test-slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=2 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 $(BIN)/pytest -m slow $(PYTEST_FLAGS)

# The chat page and the page for raters in the system's headless chromium (apt-get install chromium).
test-browser: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'playwright>=1.40'
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 $(BIN)/pytest -m browser $(PYTEST_FLAGS)

# Every reader is given 100,000 broken lines (LINES), the parser a thousand broken experiments: half an hour. G2R_DATA
# adds real lines to the sample's.
.PHONY: fuzz fuzz-guided long-run test-min
fuzz: $(VENV)/.installed-dev
	PYTHONPATH=tests HF_HUB_OFFLINE=1 $(BIN)/python -m fuzz.campaign --lines $(or $(LINES),100000) \
	  --output docs/results/fuzz.md

# The same readers by coverage, with Atheris (RUNS files each, 20,000): half an hour.
fuzz-guided: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3.0,<4'
	PYTHONPATH=tests HF_HUB_OFFLINE=1 $(BIN)/python -m fuzz.guided --runs $(or $(RUNS),20000) \
	  --output docs/results/fuzz_guided.md

# A million responses indexed, 20,000 contexts scored, 50 epochs trained: memory, open files and messages watched.
long-run: $(VENV)/.installed-dev
	OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(BIN)/python benchmarks/long_run.py \
	  --output docs/results/long_run.md $(LONG_RUN_FLAGS)

# The oldest versions that setup.cfg allows, in an environment of their own, and the tests without compilers there. torch
# is the one of constraints.txt: older builds for the CPU are not to be had from every index. What old versions warn of
# beside newer ones of their own requirements is no error there.
test-min: $(VENV)/.installed-dev
	$(PYTHON) -m venv .bench/min
	$(BIN)/python benchmarks/oldest.py > .bench/min/requirements.txt
	.bench/min/bin/python -m pip install --quiet --disable-pip-version-check -r .bench/min/requirements.txt \
	  $(shell grep '^torch==' constraints.txt) -e '.[dev]'
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 .bench/min/bin/python -m pytest -n 2 --dist worksteal \
	  -W default $(PYTEST_FLAGS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Each peer gets an environment of its own under .bench, made in the first run. G2R_DATA names the data sets; without it
# the shipped sample serves for SMALL=1. BENCH_FLAGS: --jobs, --threads, --device cuda, --allow-load.
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench.py --size $(if $(SMALL),small,$(if $(FULL),full,standard)) $(BENCH_FLAGS)

# G2R_DATA names the folder with blended_skill_talk/valid.jsonl, wizard_of_wikipedia/valid.jsonl and convai2/*.jsonl.
SAMPLE := src/g2r_lightning/sample
sample: $(VENV)/.installed
	$(BIN)/python -m g2r_lightning.sample.choose $(G2R_DATA) $(SAMPLE)
	$(RUN) fit -c experiments/teacher_sample.yaml
	$(RUN) generate -c experiments/quickstart.yaml -c experiments/sample_store.yaml
	$(RUN) score -c experiments/quickstart.yaml -c experiments/sample_store.yaml

# The study on "BST+ small", with the data sets in G2R_DATA: every run again from where it stopped. The small one is made for
# two CPU cores, the other for a GPU. MINUTES=9 stops after so many minutes; the same command goes on.
PLAN := $(BIN)/python -m g2r_lightning.studies.plan
study-small: $(VENV)/.installed-dev
	$(PLAN) experiments/study/small.plan.yaml $(if $(MINUTES),--minutes=$(MINUTES)) $(STUDY_FLAGS)

# After the small study: alpha, T, m, response set and negatives one at a time, at its size.
study-small-factors: $(VENV)/.installed-dev
	$(PLAN) experiments/study/small_factors.plan.yaml $(if $(MINUTES),--minutes=$(MINUTES)) $(STUDY_FLAGS)

# The student held against its known figures, before any comparison: hours on two CPU cores.
study-check: $(VENV)/.installed-dev
	$(PLAN) experiments/study/check.plan.yaml $(if $(MINUTES),--minutes=$(MINUTES)) $(filter --list --accept,$(STUDY_FLAGS))
	$(if $(filter --list,$(STUDY_FLAGS)),,$(BIN)/python benchmarks/student_check.py)

study: study-check
	$(PLAN) experiments/study/full.plan.yaml $(if $(MINUTES),--minutes=$(MINUTES)) $(STUDY_FLAGS)

# The records of a tiny study that notebooks and tables are tested on (three minutes).
stored-study: $(VENV)/.installed-dev
	folder=$$(mktemp -d) && OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python tests/studies/tiny_study_run.py $$folder/study

# Kills, full disks, damaged files: FAULTS of them, drawn from SEED, each logged in .cache/faults; the same call goes on.
FAULTS ?= 500
SEED ?= 0
faults: $(VENV)/.installed-dev
	PYTHONPATH=tests $(BIN)/python -m faults.campaign --faults $(FAULTS) --seed $(SEED) --page docs/results/faults.md $(FAULTS_FLAGS)

# Known vulnerabilities of what is installed. Fails too where no advisory service answers.
audit: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/audit.py

clean:
	rm -rf .cache build dist .pytest_cache .mypy_cache .ruff_cache
