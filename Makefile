# Two commands: `make demo` and `make test`. Everything lives in .venv and build/, nothing outside this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
