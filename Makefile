# Every target does its own set-up: a virtual environment in $(VENV), and what this platform has wheels for.
#   make demo    the whole loop once: train, evaluate, export, fly an emulated drone, record, replay, report
#   make test    everything that must hold          make check   formatting, lint, types, import contracts
#   make bench   speed on this machine              make clean   removes what the targets above made, except runs/
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
WORKERS ?= 2

# Where ROS 2 comes from the system (its set-up is sourced), the environment sees it and the wheels stay out.
ifdef AMENT_PREFIX_PATH
EXTRAS ?= train,crazyflie,annotate,greenhouse,identify,export,dev
VENV_FLAGS ?= --system-site-packages
else
EXTRAS ?= train,ros2,crazyflie,annotate,greenhouse,identify,export,dev
VENV_FLAGS ?=
endif

BIN := $(VENV)/bin
comma := ,
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test check bench constraints clean

help: ## prints the targets
	@sed -n '2,5s/^# *//p' Makefile

install: $(STAMP) ## makes the environment

$(STAMP): pyproject.toml constraints.txt setup.py setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "robo_rl needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Set PYTHON=...; Debian: apt-get install python3.11 python3.11-venv." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV_FLAGS) $(VENV) \
	  || { echo "no virtual environment could be made; on Debian: apt-get install python3-venv." >&2; exit 1; }
	@echo "installing robo_rl[$(EXTRAS)] into $(VENV); half a minute with a warm cache, some minutes without"
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP) ## the whole loop, ending in runs/demo/.../report.html
	@$(BIN)/robo-rl demo $(ARGS)

test: $(STAMP) ## all tests but the benchmarks
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --ignore=tests/bench $(ARGS)

check: $(STAMP) ## formatting, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports

bench: $(STAMP) ## figures of this machine
	@$(BIN)/robo-rl bench $(ARGS)

constraints: ## writes constraints.txt anew from a fresh environment
	@rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	@build/constraints/bin/python -m pip install --quiet "torch==2.13.0" -e ".[$(EXTRAS)]"
	@{ sed -n '/^#/p' constraints.txt; build/constraints/bin/python -m pip freeze --exclude-editable \
	  | sed -E '/^#/d; s/\+cpu$$//' | sort -f; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt && rm -rf build/constraints

clean: ## removes environment, caches and build products; runs/ and logs/ stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find robo_rl sim controllers hardware tests examples -name __pycache__ -prune -exec rm -rf {} +
