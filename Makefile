# `make demo` and `make test` bring in whatever they need; see README.md. `make help` lists the targets.
# Everything is made below build/ and .venv/.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

BIN := .venv/bin
PYTEST_ARGS ?=

# Looked up when a recipe runs: on a fresh machine the packages arrive first.
RUSTC = $(shell scripts/find-rustc 2>/dev/null || echo rustc)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

demo: packages venv kernel ## boot the reference kernel and stop at an IPC send, in GDB
	@$(BIN)/exogdb demo build/kernel/exo-os.elf

# One worker more than there are processors: each waits for a guest now and then.
WORKERS = $(shell expr $$(nproc) + 1)

# Compiled code is kept, whatever the user's own setting: each of pytest's processes, and each GDB, would compile it anew.
KEEPING_COMPILED = env -u PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX='$(CURDIR)/build/pycache'

test: guests build/compiled ## run every test
	$(KEEPING_COMPILED) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

# Once, and not by all of pytest's processes at the same time. What is wrong with a test is for pytest to say.
build/compiled: $(shell find exogdb tests -name '*.py') | venv
	@$(KEEPING_COMPILED) $(BIN)/python -m compileall -q -j 0 exogdb
	@$(KEEPING_COMPILED) $(BIN)/python -m pytest -q --collect-only >/dev/null || true
	@touch $@

guests: packages-test venv kernel ## build what tests boot: every variant of the kernel, and Linux up to its first program
	@$(MAKE) --no-print-directory -j$$(nproc) -f kernel/kernel.mk kernel-variants
	@$(BIN)/python -m tests.harness.linux

lint: packages venv ## run the linters and type checkers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@if [ -f kernel/kernel.mk ]; then $(MAKE) --no-print-directory kernel-lint; fi

format: packages venv ## lay the source out, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint test ## lint and test

bench: packages venv kernel ## measure, print a table and write build/bench.json
	$(BIN)/python -m bench

transcripts: packages venv kernel ## take what is not current in the papers anew: transcripts, command table
	$(BIN)/python -m tests.harness.command_table
	$(BIN)/python -m tests.harness.transcript

kernel: packages ## build the reference kernel (VARIANT=name for another build of it)

-include kernel/kernel.mk

venv: packages ## make .venv with everything that pyproject.toml names
	@scripts/make-venv

packages:
	@scripts/bring-in run

packages-test:
	@scripts/bring-in run test

clean: ## remove what was built; .venv stays
	rm -rf build

.PHONY: help demo test guests lint format check bench transcripts kernel venv packages packages-test clean
