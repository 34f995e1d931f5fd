# SPDX-License-Identifier: MIT
#
# The targets a person types. Each makes the machine ready by itself (packages,
# OpenSSL), then leaves the work to scripts/ and meson. `make help` lists them.

PREFIX ?= /usr/local
DESTDIR ?=
SUITES ?=
BENCH ?=
MAKEFLAGS += --no-print-directory
export PREFIX

.PHONY: all setup demo test lint format bench bench-micro fuzz asan tsan install clean help

all: ## build the program into build/ (the default)
	@scripts/setup.sh build
	@scripts/build.sh release

demo: all ## show a small mesh at work on this machine (root)
	@scripts/setup.sh demo
	@scripts/demo.sh

test: ## run every test; SUITES="unit netns" chooses some
	@scripts/setup.sh test
	@scripts/run-tests.py $(SUITES)

lint: ## warnings as errors with gcc and clang, clang-tidy, format, layers, shell, python
	@scripts/setup.sh lint
	@scripts/lint.sh

format: ## rewrite src/ and tests/ as .clang-format says
	@scripts/setup.sh lint
	@scripts/lint.sh rewrite

bench: ## measure a whole tunnel, then it beside others (root); BENCH=--quick for a short look
	@scripts/setup.sh bench
	@scripts/build.sh -q release
	@scripts/bench.sh $(BENCH)
	@scripts/bench.sh compare $(BENCH)

bench-micro: ## measure single parts: sealing, segmenting, tables
	@scripts/setup.sh build
	@scripts/build.sh -q release
	@scripts/bench-micro.sh

fuzz: ## run every fuzzer for FUZZ_SECONDS each (default 60)
	@scripts/setup.sh test
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-60} scripts/run-tests.py fuzz

asan: ## unit, sim and netns tests under the address and undefined-behaviour sanitizers
	@scripts/setup.sh test
	@scripts/run-tests.py asan asan-netns

tsan: ## plane tests and sim under the thread sanitizer
	@scripts/setup.sh test
	@scripts/run-tests.py tsan

install: all ## install below PREFIX (/usr/local), under DESTDIR if set
	@DESTDIR="$(DESTDIR)" meson install -C build --no-rebuild

clean: ## remove what was built; the cached OpenSSL stays
	rm -rf build build-* .setup

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14
