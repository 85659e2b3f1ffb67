# `make demo` and `make test` do all the set-up on a fresh machine: Python 3.11 or later, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint types check slow floors docs tables clean

demo: $(VENV)/.installed ## watermark, steal, prove; minutes on two cores
	$(BIN)/heirmark demo

test: $(VENV)/.installed-dev ## the test tier of the gate
	$(BIN)/python -m pytest

slow: $(VENV)/.installed-dev ## what takes minutes
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev ## style, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev ## strict types
	$(BIN)/mypy

check: lint types test ## all of the gate

floors: $(BIN)/python ## the installed command with every dependency at its floor; gigabytes, less with TORCH=2.13.0
	$(BIN)/python scripts/check_floors.py $(if $(TORCH),--torch $(TORCH))

docs: $(VENV)/.installed ## guides and reference as a site in site/
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build

tables: $(VENV)/.installed ## tables of README and docs, from the recorded results
	$(BIN)/python scripts/make_tables.py

clean: ## remove the environment, not the results
	rm -rf $(VENV)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "heirmark needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[onnx,ray,fsspec,http,serve,text,timestamp,test,lint]'
	touch $@ $(VENV)/.installed
