# Everything runs in .venv inside this folder; nothing is cached or written elsewhere.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test fuzz slow matrix integration postgres lint types bench docs notebooks setup clean

# Needs the extra `local` only. What it remembers stays in .demo/, to be looked into.
demo: .venv/demo
	rm -rf .demo
	$(BIN)/memlayer demo --path .demo

test: setup
	$(BIN)/pytest -n 2 -m "not slow"

# Other examples than `make test`: as many as fit into FUZZ_SECONDS, from a seed that it prints. CI does not depend on it.
FUZZ_SECONDS ?= 600
fuzz: setup
	$(BIN)/python tests/fuzz.py $(FUZZ_SECONDS) $(FUZZ_SEED)

slow: setup
	$(BIN)/pytest -n 2 -m slow

# 500 signals and 200 forks, in a folder and in PostgreSQL.
matrix: setup
	$(BIN)/python -m pip install --quiet --group integration
	MATRIX=10 $(BIN)/pytest tests/durability/test_interrupts.py
	MATRIX=10 MEMLAYER_TEST_POSTGRES=1 $(BIN)/pytest tests/durability/test_interrupts.py

integration: setup
	$(BIN)/python -m pip install --quiet --group integration
	$(BIN)/pytest integration_tests

# The suites that do not look into SQLite's files, with a PostgreSQL schema for every folder that they open.
postgres: setup
	$(BIN)/python -m pip install --quiet --group integration
	MEMLAYER_TEST_POSTGRES=1 $(BIN)/pytest -n 2 -m "not slow" $(addprefix tests/, test_journal.py test_memory.py \
	  test_memory_async.py test_unread.py test_reconciliation_memory.py test_store.py \
	  test_store_conformance.py test_nodes.py test_tools.py test_middleware.py durability/test_processes.py \
	  test_profiles.py test_fork.py test_undo.py moving/test_reembed.py graph/test_triple_graph.py)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m integration_tests.benchmarks

# The site, into .site/, with every block of code executed and every link checked.
docs: setup
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/pytest -n 2 tests/test_docs.py
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build -f docs/mkdocs.yml  # --quiet counts no warnings

# Executes the notebooks without a key, and keeps what they print.
notebooks: setup
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/python cookbook/execute.py

setup: .venv/installed

.venv/demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[local]"
	touch $@

.venv/installed: .venv/demo
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[local]" --group test
	touch $@

clean:
	rm -rf .venv .site .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
