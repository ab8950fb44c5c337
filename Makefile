# Everything happens in .venv, .venv-peers, .guests and .page beside this file; `make clean` removes them.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PEERS := .venv-peers
AT_A_TIME ?= 3# test files that run at the same time; they mostly wait

.DEFAULT_GOAL := help
.PHONY: help venv demo test guests test-guests test-page check format audit units bench peers sim chaos fuzz schema docs reference test-languages clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.stamp ## the virtual environment, with minilambda and the tools to test and check it
demo: venv ## start a broker and two workers, run the examples through them, leave nothing behind
	@$(PY) examples/demo.py

test: venv ## every test that needs no download
	$(PY) -m pytest -n $(AT_A_TIME) --dist loadfile $(ARGS)

guests: $(VENV)/.stamp-guests ## download and build the real guests into .guests (needs npm)
	$(PY) tools/guests.py

test-guests: guests ## the tests with real guests: CPython, a Python component, a C program
	$(PY) -m pytest tests/real $(ARGS)

test-page: $(VENV)/.stamp-page .page/axe.min.js ## the live page in a real browser (needs chromium and npm: apt-get install chromium npm)
	$(PY) -m pytest tests/page $(ARGS)

check: venv ## lint, format, types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: venv ## put the sources into the format that `make check` asks for
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(VENV)/.stamp-docs ## the pages as a site with a search, in build/site
	@$(PY) tools/site.py

reference: venv ## write the pages that are made from the code: docs/api.md, docs/errors.md
	@$(PY) tools/reference.py

test-languages: $(VENV)/.stamp-guests ## type the guides for guests (needs cargo with rustup, go, node with npm, and registries); ARGS="-k rust"
	$(PY) -m pytest tests/languages $(ARGS)

audit: $(VENV)/.stamp-audit ## ask the advisory database about all that minilambda runs on; ARGS=/opt/minilambda/bin/python for another place
	@$(PY) tools/audit.py $(ARGS)

units: ## check the systemd units with systemd-analyze
	@sh tools/units.sh

bench: $(VENV)/.stamp-bench ## all benchmarks, quick, on one page; ARGS="--full --write" for the long ones, into the docs
	@$(PY) benchmarks/bench.py $(ARGS)

peers: $(PEERS)/.stamp ## the pools that `make bench` compares with, into .venv-peers (a download of 150 MB)

sim: venv ## the simulated clusters alone
	$(PY) -m pytest tests/sim $(ARGS)

chaos: venv ## kill, freeze and part real processes under load; SECONDS=60 SEED=n, ARGS="..." for its options
	$(PY) -m tests.chaos $(if $(SECONDS),--seconds=$(SECONDS)) $(if $(SEED),--seed=$(SEED)) $(ARGS)

fuzz: venv ## feed hostile input to parts and to a whole broker; SECONDS=60 TARGET=decoder|cores|words|broker SEED=n, ARGS=--atheris
	$(PY) -m tests.fuzz $(if $(SECONDS),--seconds=$(SECONDS)) $(if $(TARGET),--target=$(TARGET)) $(if $(SEED),--seed=$(SEED)) $(ARGS)

schema: $(VENV)/.stamp-schema ## requests of all kinds from the gateway's OpenAPI document; ARGS="--max-examples 100" for more
	@$(PY) tools/schema.py $(ARGS)

clean: ## remove everything that make made
	rm -rf $(VENV) $(PEERS) .guests .page benchmarks/out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/.stamp: setup.cfg pyproject.toml tools/venv.sh
	@sh tools/venv.sh "$(PYTHON)" $(VENV) test,dev
	@touch $@

$(VENV)/.stamp-audit: $(VENV)/.stamp
	@sh tools/venv.sh "$(PYTHON)" $(VENV) audit
	@touch $@

$(VENV)/.stamp-guests: $(VENV)/.stamp
	@sh tools/venv.sh "$(PYTHON)" $(VENV) guests
	@touch $@

$(VENV)/.stamp-schema: $(VENV)/.stamp
	@sh tools/venv.sh "$(PYTHON)" $(VENV) schema
	@touch $@

$(VENV)/.stamp-page: $(VENV)/.stamp
	@sh tools/venv.sh "$(PYTHON)" $(VENV) web,page
	@touch $@

.page/axe.min.js: tools/axe.sh
	@sh tools/axe.sh .page

$(VENV)/.stamp-docs: $(VENV)/.stamp
	@sh tools/venv.sh "$(PYTHON)" $(VENV) docs
	@touch $@

$(VENV)/.stamp-bench: $(VENV)/.stamp
	@sh tools/venv.sh "$(PYTHON)" $(VENV) bench
	@touch $@

$(PEERS)/.stamp: benchmarks/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@
