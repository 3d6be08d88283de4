PYTHON ?= python3
VENV := .venv
TOOLS := tests/tools
# Tests at once: most of a test run is waiting for a grace to pass, or for a process to start.
AT_ONCE := 3
export PYTHON VENV AT_ONCE
# How Python starts is part of what is tested: PYTHONUNBUFFERED and the like stay outside.
unexport $(filter-out PYTHON,$(filter PYTHON%,$(.VARIABLES)))

# What a wheel is made of. Folders count too: adding or removing a file changes them.
WHEEL_SOURCES := $(shell find setup.py pyproject.toml MANIFEST.in README.md LICENSE include ext python \
	-not -path '*/__pycache__*' -not -path '*.egg-info*')

.DELETE_ON_ERROR:
.PHONY: help demo test core-tests instructions python-tests matrix lint asan tsan valgrind bench field cpython clean FORCE

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/installed ## watch a small service leak tasks and a thread, then its corrected variant
	@$(TOOLS)/demo.sh

test: core-tests instructions python-tests ## the core's tests, then the Python tests on an installed wheel

core-tests: build/packages
	@$(TOOLS)/core_tests.sh build/core

instructions: core-tests ## what the core's hot operations cost in instructions, against their budget
	@$(TOOLS)/system_packages.sh valgrind
	@$(PYTHON) tests/bench/instructions.py build/core

# After the core's: a fault there explains one here. (The bar: order only, for `make -j`.)
python-tests: $(VENV)/installed | core-tests
	@$(TOOLS)/system_packages.sh tests
	$(VENV)/bin/python -m pytest -n $(AT_ONCE) tests/python

matrix: core-tests $(VENV)/ready ## the tests on every CPython from 3.11 to 3.15, or: make matrix VERSIONS="3.12 3.15"
	@$(VENV)/bin/python $(TOOLS)/matrix.py $(VERSIONS)

lint: $(VENV)/lint ## ruff, mypy --strict, clang-format
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run -Werror $$(find include ext tests -name '*.[ch]')

asan: build/packages $(VENV)/installed ## the core's and the Python tests under AddressSanitizer and UBSan
	@$(TOOLS)/core_tests.sh build/asan -Db_sanitize=address,undefined
	@$(TOOLS)/python_asan.sh build/asan-python

# Without random addresses where that is allowed: where they are spread wide, as on newer kernels,
# an older ThreadSanitizer gives up.
tsan: build/packages ## the core's tests under ThreadSanitizer
	@$$(setarch -R true 2>/dev/null && echo setarch -R) $(TOOLS)/core_tests.sh build/tsan -Db_sanitize=thread

valgrind: build/packages $(VENV)/installed ## the core's tests and those of native threads under valgrind
	@$(TOOLS)/system_packages.sh valgrind
	@$(TOOLS)/core_tests.sh build/valgrind -- valgrind
	@$(TOOLS)/python_valgrind.sh

bench: $(VENV)/installed ## what watching costs, beside its peers (half an hour; less: make bench BENCH=--quick)
	@$(TOOLS)/system_packages.sh bench
	@$(VENV)/bin/python $(TOOLS)/extra.py bench | $(VENV)/bin/pip install --quiet -r /dev/stdin
	$(VENV)/bin/python tests/bench/run.py $(BENCH)

field: $(VENV)/installed ## other projects' test suites, without and with --leakguard (half an hour)
	$(VENV)/bin/python $(TOOLS)/field.py

cpython: $(VENV)/ready ## CPython's own tests, plain and under LEAKGUARD=1 (an hour)
	$(VENV)/bin/python $(TOOLS)/cpython_tests.py

clean: ## remove what make made
	rm -rf build $(VENV) python/*.egg-info .pytest_cache .mypy_cache .ruff_cache

build/packages: $(TOOLS)/system_packages.sh
	@$(TOOLS)/system_packages.sh build
	@mkdir -p build
	@touch $@

# Looks each time, so that another PYTHON gets another environment; touches its file only then.
$(VENV)/ready: FORCE | build/packages
	@$(TOOLS)/venv.sh

build/wheel/stamp: $(WHEEL_SOURCES) $(VENV)/ready
	@$(TOOLS)/wheel.sh build/wheel
	@touch $@

$(VENV)/installed: build/wheel/stamp
	@echo "installing the wheel into $(VENV)"
	@$(VENV)/bin/pip install --quiet --force-reinstall --no-deps build/wheel/*.whl
	@$(VENV)/bin/pip install --quiet "$$(echo build/wheel/*.whl)[test]"
	@touch $@

$(VENV)/lint: pyproject.toml $(VENV)/ready
	@echo "installing the linters into $(VENV)"
	@$(VENV)/bin/python $(TOOLS)/extra.py lint test | $(VENV)/bin/pip install --quiet -r /dev/stdin
	@touch $@

FORCE:
