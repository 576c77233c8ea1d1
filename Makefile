# `make` alone lists what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
# Which lock in requirements/ to install: cpu or cuda.
LOCK ?= cpu
# What `make serve` runs.
APP ?= deployments/app.yaml
# What `make load` runs against HOST, and where its results go: answers short enough for a laptop.
HOST ?= http://127.0.0.1:8000
OUT ?= build/load
LOAD ?= --steps 1,2,4,8,16 --step-seconds 20 --warm-up 10 --prompt-scale 0.3 --output-scale 0.2

BIN := $(abspath $(VENV))/bin
INSTALLED := $(VENV)/.installed-$(LOCK)
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_LOAD := $(VENV)/.installed-load

# Start-up imports a great deal: without bytecode on disk it takes twice as long.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(BIN):$(PATH)
export RAY_USAGE_STATS_ENABLED ?= 0
# Ray would start what serves at a priority lower than everything else on the machine.
export RAY_worker_niceness ?= 0
export VLLM_NO_USAGE_STATS ?= 1

.PHONY: help install models serve load test lint clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

install: $(INSTALLED) ## Create .venv and install the lock

$(INSTALLED): requirements/$(LOCK).txt pyproject.toml scripts/install
	scripts/install $(VENV) requirements/$(LOCK).txt
	touch $@

$(INSTALLED_DEV): requirements/dev.txt $(INSTALLED)
	scripts/install $(VENV) requirements/dev.txt
	touch $@

$(INSTALLED_LOAD): requirements/load.txt $(INSTALLED)
	scripts/install $(VENV) requirements/load.txt
	touch $@

models: $(INSTALLED) ## Fetch the models that APP names
	rayspec models fetch --for $(APP)

serve: models ## Install, fetch the model, serve APP on port 8000 until Ctrl-C
	python -m rayspec.planning.serve_run run $(APP)

load: $(INSTALLED_LOAD) ## Load what serves at HOST with all classes, write OUT/report.html
	python -m locust -f load_tests/locustfile.py --headless --only-summary --exit-code-on-error 0 \
		--host $(HOST) --label routed --result $(OUT)/routed.json $(LOAD)
	python load_tests/report.py $(OUT)/routed.json --out $(OUT)/report.html

test: $(INSTALLED_DEV) $(INSTALLED_LOAD) models ## Install, fetch the model, run all tests
	scripts/test

lint: $(INSTALLED_DEV) ## Check style, format, types and docs/structure.md
	ruff check .
	ruff format --check .
	mypy
	scripts/structure --check

clean: ## Remove the virtual environment and everything generated
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
