# Every target sets up what it needs in .venv and is quick the second time. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTS ?= tests
WORKERS ?= auto

.PHONY: help setup run test lint format bench bench-quick verify protos clean native-tools load-tools
.DEFAULT_GOAL := help

help:  ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY)  ## Make .venv with everything that the other targets need

$(READY): pyproject.toml setup.py constraints.txt $(wildcard extauthz/*/native/*.[ch] extauthz/checkapi/*.c)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(MAKE) --no-print-directory native-tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

# The native transport is optional: without a compiler and libnghttp2's headers `serve` runs on grpcio.
native-tools:
	@if ! pkg-config --exists libnghttp2 2>/dev/null || ! command -v cc >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing gcc, pkg-config and libnghttp2-dev for the native transport"; \
	    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
	      gcc libc6-dev pkg-config libnghttp2-dev; } >/dev/null 2>&1 || echo "could not install them: the native transport is skipped"; \
	  else echo "no compiler or libnghttp2 headers: the native transport is skipped (install gcc, pkg-config, libnghttp2-dev)"; fi; fi

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

bench: $(READY) load-tools  ## Measure everything (some twelve minutes), show it in README and docs
	$(BIN)/python -m benchmarks

bench-quick: $(READY) load-tools  ## Measure roughly (two minutes), beside the committed results
	$(BIN)/python -m benchmarks --quick

load-tools:
	@for tool in h2load:nghttp2-client nghttpd:nghttp2-server wrk:wrk; do \
	  command -v "$${tool%%:*}" >/dev/null && continue; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get -qq install -y "$${tool##*:}" >/dev/null; \
	  else echo "install $${tool##*:} first (it has $${tool%%:*})"; exit 2; fi; done

verify: $(READY)  ## Compare with the real Envoy for longer than the tests do
	$(BIN)/extauthz verify --random-policies 500 --fuzz 50000 --seed 1

protos: $(READY)  ## Rebuild the message modules from protos/
	$(BIN)/python protos/generate.py

include native.mk loadtest.mk docs.mk hostile.mk audit.mk release.mk deploy.mk operating.mk

clean:  ## Remove what the targets made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find extauthz -name '*.so' -delete
