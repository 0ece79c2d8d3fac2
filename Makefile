# Every target makes .venv by itself from python3 (3.11 or newer; `make PYTHON=python3.12 test` for another one)
# with the pinned versions of constraints.txt. `make help` lists the targets.

PYTHON ?= python3
BIN    := .venv/bin
JOBS   ?= 2
PYTEST := $(BIN)/pytest -n $(JOBS) --dist loadgroup
READY  := .venv/.ready-$(notdir $(PYTHON))

.PHONY: help demo test check fmt lint types layers schema bench test-peers test-faults soak fuzz cover peers clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(READY) ## the whole story on this machine: no accounts, no root
	$(BIN)/mail-gateway demo $(DEMO)

test: peers $(READY) ## all tests, against a real Dovecot, Cyrus and Postfix (installed by apt-get when that is allowed)
	$(PYTEST)

check: $(READY) lint types layers ## what must hold before a commit: format, ruff, mypy strict, import layers

fmt: $(READY) ## put the code into shape
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports --no-logo

schema: $(READY) ## JSON Schema of both configuration files, for editors: etc/schema
	$(BIN)/python -m gateway.config.schema

bench: peers $(READY) ## our figures beside the peers', in one run
	$(BIN)/python -m benchmarks $(or $(BENCH),all)

test-peers: peers $(READY) ## only the tests against real servers
	$(PYTEST) tests/peers

test-faults: peers $(READY) ## only kill -9, power cut, full disk
	$(PYTEST) tests/faults

soak: peers $(READY) ## 10,000 messages in, 5,000 out, in storms with 150 kills, and death at every step: an hour and more
	SOAK=1 $(PYTEST) tests/peers/test_chaos.py tests/faults/test_every_step.py tests/faults/test_outbound_rig.py \
		tests/faults/test_reload_under_load.py tests/peers/test_auto_reply_loops.py

fuzz: $(READY) ## odd mail at the signature's core for FUZZ_SECONDS (600), with figures; a found case is kept in build/fuzz
	$(BIN)/python -m tests.fuzz.signature --seconds $(or $(FUZZ_SECONDS),600)

cover: $(READY) ## line and branch coverage of the cores by their own tests; fails under 95 %
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q tests/unit tests/property
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95 --include='$(shell tests/setup/cores)'

peers: ## Dovecot, Cyrus, Postfix and what else the tests call, by apt-get where that is allowed
	@PYTHON=$(PYTHON) tests/setup/peers

clean: ## take away what make has made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* build *.egg-info

$(READY): pyproject.toml constraints.txt tests/setup/venv
	@PYTHON=$(PYTHON) tests/setup/venv
	@touch $@
