# Every target needs only Debian, Python 3.11+ and make; .venv is made on the way.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help install demo test check bench fuzz soak clean
help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

install: $(VENV)/server  ## make .venv; .venv/bin/brandproxy works after it

$(VENV)/bin/python:
	@bin/venv $(PYTHON) $(VENV)

$(VENV)/server: $(VENV)/bin/python requirements-server.lock pyproject.toml
	@echo "installing what brandproxy needs (once) ..."
	@$(PIP) install --require-hashes -r requirements-server.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/test: $(VENV)/server requirements-test.lock
	@echo "installing what the tests need (once) ..."
	@$(PIP) install --require-hashes -r requirements-test.lock
	@touch $@

$(VENV)/bench: $(VENV)/test requirements-bench.lock
	@$(PIP) install --require-hashes -r requirements-bench.lock
	@touch $@
