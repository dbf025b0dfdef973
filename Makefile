# Each target does its own set-up; what is there already is not installed again.
#   make demo   a QEMU command line becomes a domain; a snapshot brings a wrecked guest back
#   make test   linters, types, and all tests that fit into a quarter of an hour
#   make test-all  what continuous integration runs: the same, all host tests on a second libvirt, all faults on both
#   make test-whole  every case of every matrix on both
PYTHON_IN := .venv/bin/python
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help
HOST := trixie
# Each has a libvirtd and guests of its own.
WORKERS := 2
ORDERS := tests/faults/test_trees.py
PYTEST := $(PYTHON_IN) -m pytest -n $(WORKERS) --dist worksteal
.PHONY: verify-corpus corpus-figures help demo test test-all test-whole test-hosts fuzz bench bench-hosts bench-docs bench-chain bench-convert lint setup packages guest hosts clean

help:
	@echo "make demo | test | test-all | test-whole | test-hosts | fuzz | bench | bench-hosts | lint | setup | guest | clean"

demo: setup
	@$(PYTHON_IN) -m tests.demo

test: setup lint
	@$(PYTEST)

# Debian 13's libvirt and this machine's, with every case of the fault matrix; all 120 orders of deletion here alone,
# which is a quarter of an hour. A failure of one does not keep the others from running.
test-all: setup lint hosts
	@status=0; \
	$(PYTEST) --whole --on-host $(HOST) tests/faults --ignore $(ORDERS) || status=$$?; \
	$(PYTEST) --on-host $(HOST) tests/host $(ORDERS) || status=$$?; \
	$(PYTEST) --whole tests/faults || status=$$?; \
	$(PYTEST) --ignore tests/faults || status=$$?; \
	exit $$status

# The same with every case of the host tests: 200 cycles, sixty layers, the slow boots of UEFI.
test-whole: setup lint hosts
	@status=0; \
	$(PYTEST) --whole --on-host $(HOST) tests/host tests/faults || status=$$?; \
	$(PYTEST) --whole || status=$$?; \
	exit $$status

# What test-all runs on another host; HOST=sid is Debian's testing of tomorrow.
test-hosts: setup hosts
	@$(PYTEST) --on-host $(HOST) tests/host tests/faults

# Every way to save and load, compared: a table here, a report with charts in .cache/bench. 15 minutes on 2 cores.
bench: setup
	@$(PYTHON_IN) -m tests.bench $(BENCH)

# The same on Debian 13's libvirt and QEMU; its report is in .cache/hosts/trixie/cache/bench.
bench-hosts: setup hosts
	@tools/on-host $(HOST) make bench BENCH="$(BENCH)"

# Put the reports of the two into docs/benchmarks.md, with their charts.
bench-docs:
	@tools/paste-reports docs/benchmarks.md .cache/bench .cache/bench/xfs .cache/hosts/*/cache/bench .cache/hosts/*/cache/bench/xfs

# 200,000 hostile inputs; `make test` takes 5,000.
fuzz: setup
	@VIRTSNAP_FUZZ_INPUTS=200000 $(PYTHON_IN) -m pytest tests/fuzz

# Sixty saves, a flatten, and how fast a guest then reads what is at the bottom. Five minutes.
bench-chain: setup
	@$(PYTHON_IN) -m tests.bench_chain

bench-convert: setup
	@$(PYTHON_IN) -m tests.bench_convert $(CORPUS)

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

# Needs CORPUS, a folder of *.args: how many can be started here, and how many show the same hardware.
verify-corpus: setup
	@$(PYTHON_IN) -m tests.host.verify_corpus $(CORPUS)

# Needs CORPUS, a folder of *.args: what becomes of their words, and whether all are valid.
corpus-figures: setup
	@$(PYTHON_IN) -m tests.corpus_figures $(CORPUS)

guest: setup
	@$(PYTHON_IN) -m tests.guest.build cloud full

# Another libvirt and QEMU: Debian 13 in a folder, kept between runs. HOST=sid and the like on demand.
hosts: packages
	@tools/build-host $(HOST)
	@tools/on-host $(HOST) make setup

clean:
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
