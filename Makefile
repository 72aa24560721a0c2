# Everything a person does here is one word after `make`. It needs Python 3.11 or newer, make and pip's registry.
# Another Python: make test PYTHON=python3.13. Another place for the environment: VENV=.venv-313. Tests one after
# another: WORKERS=0.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
STAMP := $(VENV)/.stamp
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest --quiet
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help venv demo test fuzz test-all lint format types imports snippets examples docs check shots bench packaged wheel clean

help: ## show these lines
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | column -t -s @ 2>/dev/null || true

# The library with its command line: all that the demo needs. The stamps are written last: a failed installation is
# tried again.
$(INSTALLED): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Scattersphere needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`. Try: make PYTHON=python3.13" >&2; exit 1; }
	@echo "Setting up $(VENV) (seconds, once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable '.[cli]'
	@touch $@

# pip learned --group in 25.1, so it comes first.
$(STAMP): $(INSTALLED)
	@echo "Adding to $(VENV) what tests, checks and documentation need (a minute or two, once) ..."
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --upgrade --editable '.[cli,trio]' --group dev
	@touch $@

venv: $(STAMP) ## make or renew the environment in .venv, with all that the other words need

demo: $(INSTALLED) ## count the words of Python's own library with a job of six tasks
	@$(BIN)/scattersphere run examples/wordcount/wordcount.json

# Which tests are dear stands in tests/costs.py; under the profile of CI the properties try eight times as many cases.
test: $(STAMP) ## run the tests but the dear ones, in WORKERS processes
	@$(PYTEST) --numprocesses $(WORKERS) --dist worksteal

test-all: export HYPOTHESIS_PROFILE ?= ci
test-all: $(STAMP) ## run all tests, as CI does (minutes)
	@$(PYTEST) -m "" --numprocesses $(WORKERS) --dist worksteal

check: lint types imports examples docs snippets ## lint, types, import rules, examples, docs and their snippets

lint: $(STAMP) ## ruff: rules and layout
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet

format: $(STAMP) ## ruff: mend what can be mended by itself
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format --quiet

types: $(STAMP) ## mypy and pyright
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@PATH="$(CURDIR)/$(BIN):$$PATH" pyright --verifytypes scattersphere --ignoreexternal >.pyright.log 2>&1 || { cat .pyright.log; rm .pyright.log; exit 1; }; rm .pyright.log

imports: $(STAMP) ## who may import whom
	@$(BIN)/lint-imports --no-cache

examples: $(STAMP) ## run every example
	@$(PYTEST) -m "" tests/test_examples.py tests/test_example_hosts.py

docs: $(STAMP) ## build the documentation; a warning is an error
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "The documentation is in docs/_build/html/index.html"

snippets: $(STAMP) ## run what the README and the documentation show
	@$(PYTEST) README.md docs

SHOTS ?= shots
shots: $(STAMP) ## pictures of every page in every state into SHOTS, by a Chromium: to be looked at (a minute)
	@$(BIN)/python tests/web/shots.py $(SHOTS)

docs/page.png: $(STAMP) ## make the picture of a page that the README shows again
	@$(BIN)/python tests/web/shots.py --readme $@

bench: $(STAMP) ## measure the cost of a task against hand-written loops (minutes)
	@$(BIN)/python -m benchmarks dispatch

FUZZ ?= 600
fuzz: $(STAMP) ## fuzz what reads the bytes of strangers, guided by coverage, FUZZ seconds altogether (Linux)
	@$(PIP) install --group fuzz
	@$(BIN)/python -m fuzz $(FUZZ)

packaged: ## test the wheel with the lowest dependencies, then without the extras (minutes)
	@.ci/packaged $(PYTHON)

wheel: $(STAMP) ## build the wheel and the source archive into dist/
	@$(PIP) install build
	@$(BIN)/python -m build --outdir dist

clean: ## remove what the other words made
	rm -rf .venv .venv-* build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
