# Each target does its own set-up; what is there already is not installed again.
#   make demo   a QEMU command line becomes a domain; a snapshot brings a wrecked guest back
#   make test   linters, types, and all tests that fit into a quarter of an hour
PYTHON_IN := .venv/bin/python
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint setup packages guest clean

help:
	@echo "make demo | test | test-all | lint | setup | guest | clean"

demo: setup
	@$(PYTHON_IN) -m tests.demo

test: setup lint
	@$(PYTHON_IN) -m pytest

test-all: test

lint: setup
	@.venv/bin/ruff check
	@.venv/bin/mypy

setup: packages
	@$(MAKE) --silent .venv/stamp

# Not a file: asking whether all packages are there takes a tenth of a second.
packages:
	@tools/install-packages

.venv/stamp: pyproject.toml tools/make-venv
	@tools/make-venv
	@touch $@

guest: setup
	@$(PYTHON_IN) -m tests.guest.build cloud full

clean:
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
