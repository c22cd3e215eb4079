# `make book` and `make test` are all that a fresh clone needs, beside Python 3.11+ and make.
BOOK_VENV ?= .venv
export BOOK_VENV
# Where imports come from is decided here, not by a reader's shell.
unexport PYTHONHOME PYTHONPATH
ifeq ($(OS),Windows_NT)
PYTHON ?= python
VENV := "$(BOOK_VENV)/Scripts/python"
else
PYTHON ?= python3
VENV := "$(BOOK_VENV)/bin/python"
endif
# A Python that you name (make PYTHON=python3.12) is the one that the environment must be of.
THIS := $(if $(filter file,$(origin PYTHON)),,--this)

.DEFAULT_GOAL := help
.PHONY: help env book pdf execute test check serve lab bench lock matrix binder-check clean

help: ## say what there is
	@$(PYTHON) -c "import re; [print(f'  make {m[1]:14}{m[2]}') for m in re.finditer(r'^([\w-]+):.*?## (.+)$$', open('Makefile', encoding='utf-8').read(), re.M)]"

env: ## make the environment (every target does)
	@$(PYTHON) tools/env.py $(THIS)

book: env ## run the chapters that changed, then render the book to _build/html
	@$(VENV) -m tools.execute
	@$(VENV) -m tools.build

pdf: book ## print the whole book to _build/html/book.pdf, and offer it on the pages
	@$(VENV) -m tools.pdf
	@$(VENV) -m tools.build

execute: env ## run the chapters that changed (all of them: make execute ALL=--all)
	@$(VENV) -m tools.execute $(ALL)

test: env ## check everything: lint, types, helpers, notebooks, book, pages (mistakes seen before: make test ALL=--all)
	@$(VENV) -m tools.check $(ALL)

check: env ## check what your changes can have broken (a page by name: make check ONLY=03)
	@$(VENV) -m tools.check --changed $(ONLY)

serve: env ## preview the book; it follows your edits (another port: make serve PORT=8001)
	@$(VENV) -m tools.serve $(PORT)

lab: export JUPYTER_CONFIG_PATH := $(CURDIR)/tools
lab: env ## read and run the notebooks in JupyterLab (another port: make lab PORT=8889)
	@$(VENV) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/$(firstword $(sort $(wildcard notebooks/*.ipynb))) $(if $(PORT),--port=$(PORT))

bench: env ## measure what is fast, side by side
	@$(VENV) -m benchmarks

lock: env ## pin what requirements/*.in ask for (the newest of all else: make lock UPGRADE=--upgrade)
	@$(VENV) -m uv pip compile -q $(UPGRADE) requirements/book.in -o requirements/book.txt
	@$(VENV) -m uv pip compile -q $(UPGRADE) requirements/tools.in -o requirements/tools.txt
	@$(VENV) -m uv pip compile -q $(UPGRADE) requirements/binder.in -o requirements/binder.txt

matrix: env ## the tests with other Pythons, versions and instruction sets (long; one: make matrix SESSION='-s oldest')
	@$(VENV) -m nox $(SESSION)

binder-check: env ## install what Binder installs and run a notebook through a Jupyter server (some minutes)
	@$(VENV) -m tools.binder

clean: ## remove what can be made again (not the notebooks, not .venv)
	@$(PYTHON) -c "import shutil; [shutil.rmtree(p, ignore_errors=True) for p in ('_build', 'build', '.nox', '.pytest_cache', '.ruff_cache', '.mypy_cache', '.hypothesis')]"
