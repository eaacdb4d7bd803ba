# Every target sets up what it needs in .venv and is quick the second time. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTS ?= tests
WORKERS ?= auto

.PHONY: help setup run test lint format bench bench-quick verify protos clean python-tools native-tools load-tools
.DEFAULT_GOAL := help

help:  ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY)  ## Make .venv with everything that the other targets need

$(READY): pyproject.toml setup.py constraints.txt $(wildcard extauthz/*/native/*.[ch] extauthz/*/*.c)
	@$(MAKE) --no-print-directory native-tools
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

# $(call debian,PACKAGES): install them where that may be done; its status says whether it was.
debian = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing $(1)" && \
  { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(1); } >/dev/null 2>&1; }

python-tools:
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON): install Python 3.11 or newer, or name it with PYTHON="; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V): Python 3.11 or newer is needed, named with PYTHON="; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(call debian,python3-venv) || \
	  { echo "$(PYTHON) cannot make environments (Debian: apt install python3-venv)"; exit 2; }

# The native transport is optional: without a compiler and the headers of Python and libnghttp2 `serve` runs on grpcio.
native-tools: python-tools
	@missing=; command -v cc >/dev/null || missing="gcc libc6-dev"; \
	pkg-config --exists libnghttp2 2>/dev/null || missing="$$missing pkg-config libnghttp2-dev"; \
	$(PYTHON) -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' 2>/dev/null || \
	  missing="$$missing python3-dev"; \
	[ -z "$$missing" ] || $(call debian,$$missing) || \
	  echo the native transport is skipped: it needs $$missing "(Debian's names)"

run: $(READY)  ## The main job: the story's policies decided by this service behind a real Envoy
	@$(BIN)/extauthz demo

test: lint  ## Lint, then all tests
	$(BIN)/python -m pytest -n $(WORKERS) -q $(TESTS)

lint: $(READY)  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) load-tools  ## Measure everything (some fourteen minutes), show it in README and docs
	$(BIN)/python -m benchmarks

bench-quick: $(READY) load-tools  ## Measure roughly (two minutes), beside the committed results
	$(BIN)/python -m benchmarks --quick

load-tools:
	@for tool in h2load:nghttp2-client nghttpd:nghttp2-server wrk:wrk; do \
	  command -v "$${tool%%:*}" >/dev/null || $(call debian,$${tool##*:}) || \
	  { echo "install $${tool##*:} first: measuring needs its $${tool%%:*}"; exit 2; }; done

verify: $(READY)  ## Compare with the real Envoy for longer than the tests do
	$(BIN)/extauthz verify --random-policies 500 --fuzz 50000 --seed 1

protos: $(READY)  ## Rebuild the message modules from protos/
	$(BIN)/python protos/generate.py

include native.mk loadtest.mk docs.mk hostile.mk audit.mk release.mk deploy.mk operating.mk

clean:  ## Remove what the targets made
	rm -rf $(VENV) .build build dist *.egg-info benchmarks/results/quick .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find extauthz -name '*.so' -delete
