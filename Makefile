# `make demo` shows coinfer, `make test` checks it. A machine needs Python 3.11 or later, a C++20 compiler, make and git;
# everything else is installed into .venv, with the versions of constraints.txt, and built in build/. Nothing outside this
# folder is written.
#
# A finished step leaves a stamp in .venv/stamps and runs again only when a file that it read is newer. Paths in recipes
# are relative, so a folder whose name has spaces works.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
# One step after the other, whatever -j says: steps share .venv. `make test` lifts this where nothing is installed.
ifndef TOGETHER
.NOTPARALLEL:
endif

# The first interpreter that is recent enough; name another one with `make demo PYTHON=/path/to/python3.12`.
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; exit; }; done; \
	echo python3)
endif

VENV := .venv
STAMPS := $(VENV)/stamps
BUILD := build/package
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
NINJA := $(RUN) MAKEFLAGS= # whose jobserver ninja would ask for, in vain
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check
PYTEST := $(VENV)/bin/python -m pytest
JOBS := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
SAY = @printf '==> %s\n'

# Folders are listed too: their time changes when a file is added or removed.
PACKAGE_SOURCES := CMakeLists.txt pyproject.toml $(shell find src csrc python cmake -name __pycache__ -prune -o -print)
CPP_FILES := find src csrc tests/cpp -name '*.cpp' -o -name '*.hpp' -o -name '*.inl'

# Names from pyproject.toml (one group: build, run, or an extra); versions from constraints.txt.
define NAMES
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    table = tomllib.load(file)
groups = {"build": table["build-system"]["requires"] + ["cmake", "ninja"], "run": table["project"]["dependencies"]}
print(*(groups | table["project"]["optional-dependencies"])[sys.argv[1]], sep="\n")
endef
export NAMES

.PHONY: help demo triton live soak-faults soak train-table test-flower install test test-cpp asan test-docs test-bench test-python tsan lint ruff mypy clang-format clang-tidy format bench billion clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: install ## build and install into .venv, then run `coinfer demo`
	$(SAY) 'coinfer demo'
	@$(VENV)/bin/coinfer demo

install: $(STAMPS)/package ## build and install into .venv

test: $(STAMPS)/package $(STAMPS)/test ## all of the next five, whichever fails; the Python tests last and alone, as some measure time
	@status=0; \
	$(MAKE) -k -j 2 --output-sync TOGETHER=yes test-cpp asan test-docs test-bench || status=$$?; \
	$(MAKE) test-python || status=$$?; \
	exit $$status

test-cpp: $(STAMPS)/package ## C++ tests, release build: the engine is the one that the package holds
	$(SAY) 'C++ tests, release build'
	@$(NINJA) cmake --build $(BUILD) -- --quiet
	@$(RUN) ctest --test-dir $(BUILD) --output-on-failure --no-tests=error --parallel 2

asan: $(STAMPS)/build ## C++ tests under the address and undefined-behaviour sanitizers
	$(call preset,asan)

test-docs test-bench test-python: $(STAMPS)/package $(STAMPS)/test

test-docs: ## examples in the documentation of the installed package
	$(SAY) 'Doctests of the installed package'
	@$(PYTEST) --doctest-modules --pyargs coinfer

test-bench: ## benchmarks as checks of their results, on small inputs
	$(SAY) 'Benchmarks as checks'
	@$(PYTEST) bench --benchmark-disable

test-python: ## Python tests: two files at a time, then those that measure time
	$(SAY) 'Python tests'
	@$(PYTEST) tests -m 'not live and not timed' --numprocesses 2 --dist loadfile
	$(SAY) 'Python tests that measure time, and those against real Triton servers'
	@$(PYTEST) tests -m 'live or timed'

tsan: $(STAMPS)/build ## C++ tests under the thread sanitizer
	$(call preset,tsan,$(STILL))

# The thread sanitizer of older compilers needs a fixed address layout; not every container allows to ask for one.
STILL = $(shell setarch -R true 2>/dev/null && echo setarch -R)

define preset
	$(SAY) 'C++ tests, preset $(1)'
	@$(RUN) cmake --preset $(1) >/dev/null
	@$(NINJA) cmake --build --preset $(1) -- --quiet
	@$(RUN) $(2) ctest --preset $(1)
endef

lint: ruff mypy clang-format clang-tidy ## ruff, mypy, clang-format, clang-tidy; `make -k lint` goes on after one that fails

ruff mypy clang-format clang-tidy: $(STAMPS)/build $(STAMPS)/run $(STAMPS)/lint

ruff:
	$(SAY) 'ruff'
	@$(RUN) ruff check --output-format concise
	@$(RUN) ruff format --check

mypy:
	$(SAY) 'mypy'
	@$(RUN) mypy

clang-format:
	$(SAY) 'clang-format'
	@$(CPP_FILES) | $(RUN) xargs clang-format --dry-run -Werror

clang-tidy:
	$(SAY) 'clang-tidy'
	@$(RUN) cmake --preset lint -DPython_EXECUTABLE="$(CURDIR)/$(VENV)/bin/python" \
		-Dpybind11_DIR="$$($(VENV)/bin/python -m pybind11 --cmakedir)" >/dev/null
	@find src csrc -name '*.cpp' | $(RUN) xargs -n 1 -P $(JOBS) clang-tidy --quiet -p build/lint

format: $(STAMPS)/lint ## rewrite sources with ruff and clang-format
	@$(RUN) ruff check --fix --exit-zero
	@$(RUN) ruff format
	@$(CPP_FILES) | $(RUN) xargs clang-format -i

triton: .venv-triton/stamp ## a real Triton server (no GPU, no Docker) into .venv-triton, for live runs and their tests

.venv-triton/stamp: triton-constraints.txt
	$(SAY) 'Triton server in .venv-triton'
	@"$(PYTHON)" -m venv --clear .venv-triton
	@.venv-triton/bin/python -m pip --quiet --disable-pip-version-check install --constraint $< nvidia-pytriton
	@touch $@

live: $(STAMPS)/package $(STAMPS)/test triton ## three real Triton servers, four strategies, live table beside replay table, report
	$(SAY) 'Live'
	@$(VENV)/bin/python bench/live.py

soak-faults: $(STAMPS)/package $(STAMPS)/test triton ## every fault of a real server 20 times, 2,000 requests each; under an hour
	$(SAY) 'Faults, again and again'
	@$(VENV)/bin/python bench/live_faults.py

train-table: $(STAMPS)/package $(STAMPS)/test ## weights of early exits on MNIST-10k: seven profiles, eight seeds; into docs/training.md
	$(SAY) 'Training table'
	@$(VENV)/bin/python bench/train_table.py

# Flower's pins (typer, rich, packaging) do not fit beside the test set, so it has an environment of its own.
test-flower: $(STAMPS)/package flower-constraints.txt ## the same training under Flower's simulation engine, in build/flower
	$(SAY) 'Flower'
	@"$(PYTHON)" -m venv build/flower
	@$(RUN) $(PIP) wheel --no-deps --no-build-isolation --wheel-dir build/flower/wheel .
	@build/flower/bin/python -m pip --quiet --disable-pip-version-check install --constraint flower-constraints.txt \
		--force-reinstall --no-deps build/flower/wheel/coinfer-*.whl
	@build/flower/bin/python -m pip --quiet --disable-pip-version-check install --constraint flower-constraints.txt \
		"$$(echo build/flower/wheel/coinfer-*.whl)[train,flower]" pytest
	@build/flower/bin/python -m pytest -c /dev/null --rootdir . -p no:cacheprovider tests/train/test_flower.py

soak: $(STAMPS)/package $(STAMPS)/test triton ## ten minutes of saturating live load: memory flat, nothing leaked
	$(SAY) 'Soak'
	@$(VENV)/bin/python bench/live_faults.py --soak 600

bench: $(STAMPS)/package $(STAMPS)/test ## benchmarks at full size, then the tables of docs/PERFORMANCE.md
	$(SAY) 'Benchmarks'
	@mkdir -p build
	@$(PYTEST) bench --benchmark-only --benchmark-json=build/benchmarks.json
	@for table in bench/table_*.py; do echo "==> $$table"; $(VENV)/bin/python "$$table" || exit; done

billion: $(STAMPS)/package ## a billion requests through thirteen stations with queues: time and peak memory
	$(SAY) 'A billion requests'
	@$(VENV)/bin/python bench/billion.py

clean: ## remove .venv, build/ and caches
	rm -rf $(VENV) .venv-triton build dist .mypy_cache .pytest_cache .ruff_cache .benchmarks .hypothesis

# --- what the targets above stand on ---------------------------------------------------------------------------------

$(STAMPS)/venv:
	$(SAY) 'Python environment in $(VENV)'
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'coinfer needs Python 3.11 or later; make ... PYTHON=/path/to/python3 names another one.' >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) has no venv or no ensurepip; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@"$(PYTHON)" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || { \
		echo '$(PYTHON) has no Python.h; on Debian and Ubuntu: apt-get install python3-dev' >&2; exit 1; }
	@for compiler in "$$CXX" c++ g++ clang++; do command -v "$$compiler" >/dev/null 2>&1 && exit; done; \
		echo 'There is no C++ compiler: install g++ or clang++, or make ... CXX=/path/to/compiler' >&2; exit 1
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# One rule for every group of pyproject.toml.
$(STAMPS)/build $(STAMPS)/run $(STAMPS)/test $(STAMPS)/lint: $(STAMPS)/%: $(STAMPS)/venv pyproject.toml constraints.txt
	$(SAY) 'Dependencies to $*'
	@$(VENV)/bin/python -c "$$NAMES" $* >$@.names
	@$(PIP) install --constraint constraints.txt --requirement $@.names
	@touch $@

$(STAMPS)/package: $(STAMPS)/build $(STAMPS)/run $(PACKAGE_SOURCES)
	$(SAY) 'Build and install coinfer (about a minute the first time)'
	@$(NINJA) CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(PIP) install --no-deps --no-build-isolation --force-reinstall . \
		--config-settings=build-dir=$(BUILD) --config-settings=cmake.define.COINFER_TESTS=ON \
		--config-settings=cmake.define.COINFER_WERROR=$(if $(CI),ON,OFF)
	@touch $@
