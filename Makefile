# softsgx: what one types. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 >/dev/null 2>&1 && echo python3.11 || echo python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Python code outside src and tests, as far as it exists.
EXTRA  := $(wildcard bench) $(wildcard tools/*.py)
# For example: make test PYTEST_ARGS='-k tidy'
PYTEST_ARGS ?=

.PHONY: help setup lint test format fuzz fuzz-run fuzz-explain fuzz-explore signal-storm mutants demo explored conformance driver bench docs asm lock lowest driver-programs differential plants clean driver-plants decided release-check image site site-lock

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(STAMP)  ## .venv with the locked dependencies and softsgx itself (.venv/bin/softsgx)

# The lock holds the build backend too, so that nothing is resolved while installing.
$(STAMP): pyproject.toml requirements/dev.txt tools/make-venv
	@tools/make-venv "$(PYTHON)" $(VENV)
	@$(PIP) install --no-deps -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

lint: setup  ## formatting, ruff, mypy --strict, dead code
	@$(BIN)/ruff format --check --quiet . || { echo 'softsgx: lint: not formatted: run make format' >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --strict src tests $(EXTRA)
	@$(BIN)/python -m tools.dead_code

test: lint  ## everything CI runs: setup, lint, the whole suite
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q -rfEs $(PYTEST_ARGS)

format: setup  ## rewrite the sources in the project's format
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

# For example: make fuzz EXAMPLES=100000
EXAMPLES ?= 20000
fuzz: setup  ## a long campaign of the property tests, EXAMPLES random examples each
	@SOFTSGX_FUZZ=$(EXAMPLES) $(BIN)/python -m pytest tests/property tests/system/explain/test_advice.py -q -s

# For example: make fuzz-run OPERATIONS=1000000 SEED=7
OPERATIONS ?= 100000
SEED ?= 1
fuzz-run: setup  ## OPERATIONS random operations of a program under softsgx run (needs gcc)
	@$(BIN)/python -m tests.runner.fuzz --operations $(OPERATIONS) --seed $(SEED)

# For example: make fuzz-explain EXAMPLES=10000 SEED=3
fuzz-explain: setup  ## EXAMPLES random machines and programs: is every refusal explained?
	@$(BIN)/python -m tests.explained.fuzz --examples $(EXAMPLES) --seed $(SEED)

# For example: make fuzz-explore EXAMPLES=1000000 SEED=3; after a break FIRST=420000 as well
FIRST ?= 0
fuzz-explore: setup  ## EXAMPLES random programs: does every strategy of explore say what is true?
	@$(BIN)/python -m tests.explore.oracle --examples $(EXAMPLES) --seed $(SEED) --first $(FIRST)

# For example: make signal-storm SECONDS=60
SECONDS ?= 3600
signal-storm: setup  ## signals for SECONDS over threads in an enclave: is one lost? (an hour; needs gcc)
	@$(BIN)/python -m tests.signals.storm --seconds $(SECONDS) --seed $(SEED)

# For example: make differential OPERATIONS=1000000 LINUX=6.12 SEED=3 JOBS=2; a stream alone: FIRST=417
LINUX ?= 6.12
JOBS ?= 1
differential: setup  ## OPERATIONS random operations: do the kernel's driver, in C, and ours agree? (needs gcc)
	@$(BIN)/python -m tests.differential --linux $(LINUX) --operations $(OPERATIONS) --seed $(SEED) \
		--first $(FIRST) --jobs $(JOBS)

# Where a package is not installed, the message says so and the tests of that version are skipped.
driver: setup  ## Linux's own driver, of the installed Debian packages, in build/driver (needs gcc)
	@mkdir -p build/driver
	@for version in 6.12 6.1; do \
		$(BIN)/softsgx driver build --debian $$version -o build/driver/$$version.drv || \
			echo "softsgx: driver: Linux $$version: not built: its tests are skipped" >&2; done

# For example: make plants LINUX=6.1
plants: setup  ## bugs planted in the kernel's driver: is each found, and how soon? (minutes; needs gcc)
	@$(BIN)/python -m tests.differential.plants --linux $(LINUX) --seed $(SEED) --shrink

# For example: make mutants SAMPLE=50 SEED=7 ROOMS='cpu linux'; make mutants MUTANTS=named
SAMPLE ?= 200
ROOMS ?= cpu linux explore system cli
MUTANTS ?= all
mutants: setup  ## change SAMPLE places of ROOMS one at a time: does a test notice? (hours; JOBS at once)
	@$(BIN)/python -m tools.mutants --sample $(SAMPLE) --seed $(SEED) --rooms $(ROOMS) \
		--mutants $(MUTANTS) --jobs $(JOBS)

# examples/edmm: host and enclave with gcc, a key of its own, the SIGSTRUCT with `softsgx sign`.
ifeq ($(origin CC),default)
CC     := gcc
endif
CCWARN := -std=gnu11 -O2 -Wall -Wextra -Werror
EDMM   := examples/edmm
DEMO   := build/demo
# The environment of `make setup` if that was made, or one with nothing but what softsgx itself needs.
RUN    := $(if $(wildcard $(STAMP)),$(STAMP),$(DEMO)/environment/.stamp)
RUNNER := PYTHONPATH=$(CURDIR)/src$${PYTHONPATH:+:$$PYTHONPATH} $(dir $(RUN))bin/python

demo: $(RUN) $(DEMO)/host $(DEMO)/enclave.sig  ## build examples/edmm with gcc and run it under softsgx
	@$(RUNNER) -m softsgx run --explain --stats -- $(DEMO)/host $(DEMO)/enclave.sgxs $(DEMO)/enclave.sig

# What static libraries of wheels are for, nothing here does: they are half of it all.
$(DEMO)/environment/.stamp: pyproject.toml requirements/dev.txt tools/make-venv tools/pins.py
	@echo 'softsgx: demo: an environment with what softsgx needs to run, in $(@D): 80 MB' >&2
	@tools/make-venv "$(PYTHON)" $(@D)
	@$(@D)/bin/python -m pip --quiet --disable-pip-version-check install \
		--constraint requirements/dev.txt $$($(@D)/bin/python tools/pins.py --run)
	@find $(@D)/lib -name '*.a' -delete
	@touch $@

$(DEMO)/host: $(EDMM)/host.c $(wildcard $(EDMM)/*.h)
	@command -v $(CC) >/dev/null || { echo 'softsgx: demo: $(CC) is not installed' >&2; exit 2; }
	@mkdir -p $(DEMO)
	@$(CC) $(CCWARN) -pthread -o $@ $<

$(DEMO)/enclave: $(EDMM)/enclave.c $(wildcard $(EDMM)/*.h)
	@command -v $(CC) >/dev/null || { echo 'softsgx: demo: $(CC) is not installed' >&2; exit 2; }
	@mkdir -p $(DEMO)
	@$(CC) $(CCWARN) -nostdlib -static-pie -fpie -fno-stack-protector -fcf-protection=none \
		-Wl,-z,max-page-size=4096,-z,noexecstack -o $@ $<

$(DEMO)/key.pem: $(RUN)
	@mkdir -p $(DEMO)
	@$(RUNNER) -m tools.make_key $@

$(DEMO)/enclave.sig: $(DEMO)/enclave $(DEMO)/key.pem
	@$(RUNNER) -m softsgx sign $< --key $(DEMO)/key.pem --threads 2 -o $@ --sgxs $(DEMO)/enclave.sgxs

# examples/explored: enclaves to be explored, one of them twice, with its mistakes and without.
EXPLORED := examples/explored
BUILT    := build/explored

explored: $(BUILT)/enclave $(BUILT)/attacks $(BUILT)/attacks-repaired  ## build examples/explored with gcc into build/explored
	@cp $(EXPLORED)/*.py $(BUILT)

$(BUILT)/attacks-repaired: REPAIRED := -DREPAIRED
$(BUILT)/attacks-repaired: $(EXPLORED)/attacks.c
$(BUILT)/attacks: $(EXPLORED)/attacks.c
$(BUILT)/enclave: $(EXPLORED)/enclave.c
$(BUILT)/attacks-repaired $(BUILT)/attacks $(BUILT)/enclave: $(EXPLORED)/entry.h
	@command -v $(CC) >/dev/null || { echo 'softsgx: explored: $(CC) is not installed' >&2; exit 2; }
	@mkdir -p $(BUILT)
	@$(CC) $(CCWARN) -nostdlib -static-pie -fpie -fno-stack-protector -fcf-protection=none $(REPAIRED) \
		-Wl,-z,max-page-size=4096,-z,noexecstack -o $@ $(filter %.c,$^)

expected: setup  ## measure the searches by which explore tells how much of one is done (10 minutes)
	@$(BIN)/python -m tools.expected

decided: setup  ## search every shipped scenario with two processes; the table of docs/explore.md
	@$(BIN)/python -m tools.decided

# For example: make conformance CONFORMANCE='--linux 6.1 --engine native'
conformance: setup  ## the kernel's own SGX selftests of Linux 6.1 and 6.12, unmodified
	@$(BIN)/python -m tools.conformance $(CONFORMANCE)

# For example: make driver-programs LINUX=6.1 PYTEST_ARGS='-k edmm'
LINUX ?= 6.12
driver-programs: setup  ## the programs of tests/programs on the kernel's own driver, of Linux LINUX
	@mkdir -p build
	@$(BIN)/softsgx driver build --debian $(LINUX) -o build/$(LINUX).drv
	@SOFTSGX_TESTED_DRIVER=$(CURDIR)/build/$(LINUX).drv $(BIN)/python -m pytest -n 2 -q \
		tests/runner/test_programs.py $(PYTEST_ARGS)

driver-plants: setup  ## bugs planted in copies of Linux's driver: what finds each?
	@$(BIN)/python -m tests.cdriver.plants

bench: setup  ## measure; the table goes to stdout and bench/README.md
	@test -d bench || { echo 'softsgx: bench: bench/: not there yet' >&2; exit 2; }
	@$(BIN)/python -m bench | tee bench/README.md.new
	@mv bench/README.md.new bench/README.md

docs: setup  ## make anew what the documents quote (needs gcc; minutes)
	@$(BIN)/python -m tools.documents

# Sphinx has an environment of its own: it is no part of what tests need. -W: a warning is an error.
SITE := build/site-environment
SPHINX := -q -W --keep-going -E -n -C -b html \
	-D project=softsgx -D html_title=softsgx -D html_theme=furo -D html_copy_source=0 \
	-D html_show_copyright=0 -D extensions=myst_parser -D myst_heading_anchors=4

site: setup $(SITE)/.stamp  ## the documents and the reference as pages, in build/site
	@$(BIN)/python -m tools.site build/site-source
	@rm -rf build/site
	@$(SITE)/bin/python -m sphinx $(SPHINX) build/site-source build/site
	@echo build/site/index.html

$(SITE)/.stamp: requirements/site.txt tools/make-venv
	@tools/make-venv "$(PYTHON)" $(SITE)
	@$(SITE)/bin/python -m pip --quiet --disable-pip-version-check install --no-deps -r requirements/site.txt
	@touch $@

asm: setup  ## assemble the runner's stub and vDSO function anew (needs binutils)
	@$(BIN)/python -m tools.assemble

# Resolved afresh from pyproject.toml in an environment of its own, so that nothing left over gets in.
lock:  ## rewrite requirements/dev.txt from the pins of pyproject.toml
	@tools/make-venv "$(PYTHON)" build/lock
	@build/lock/bin/python -m pip --quiet --disable-pip-version-check install --upgrade \
		$$(build/lock/bin/python tools/pins.py)
	@{ echo '# Written by `make lock`: every package, direct or not, that `make setup` installs.'; \
		build/lock/bin/python -m pip freeze --all --exclude pip; } > build/lock.txt
	@mv build/lock.txt requirements/dev.txt
	@rm -rf build/lock

site-lock:  ## rewrite requirements/site.txt from the extra `site` of pyproject.toml
	@tools/make-venv "$(PYTHON)" build/lock
	@build/lock/bin/python -m pip --quiet --disable-pip-version-check install --upgrade \
		$$(build/lock/bin/python tools/pins.py --site)
	@{ echo '# Written by `make site-lock`: every package, direct or not, that `make site` installs.'; \
		build/lock/bin/python -m pip freeze --exclude setuptools; } > build/lock.txt
	@mv build/lock.txt requirements/site.txt
	@rm -rf build/lock

# What users may have: the lowest versions that pyproject.toml allows, with the tools of the lock.
# Old packages may use what newer ones of others deprecate.
LOWEST := build/lowest
lowest: $(LOWEST)/.stamp  ## the tests of what depends on other packages, with their lowest versions
	@$(LOWEST)/bin/python -m pytest -n 2 -q -W ignore::DeprecationWarning tests/image tests/runner/emulator tests/cli/test_compare.py \
		tests/cli/test_cluster.py tests/cli/test_sign.py

$(LOWEST)/.stamp: pyproject.toml requirements/dev.txt tools/make-venv tools/pins.py
	@tools/make-venv "$(PYTHON)" $(LOWEST)
	@$(LOWEST)/bin/python -m pip --quiet --disable-pip-version-check install -r requirements/dev.txt
	@$(LOWEST)/bin/python -m pip --quiet --disable-pip-version-check install \
		$$($(LOWEST)/bin/python tools/pins.py --lowest)
	@$(LOWEST)/bin/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	@touch $@

release-check: setup  ## wheel and sdist: built, checked by twine, tested from the unpacked sdist
	@tools/release-check "$(PYTHON)"

# For example: make image ENGINE=docker WITH=pytest
ENGINE ?= podman
WITH ?=
image:  ## the image softsgx of the Dockerfile, built with ENGINE; its demo and doctor, run in it
	@command -v $(ENGINE) >/dev/null || { echo 'softsgx: image: $(ENGINE) is not installed' >&2; exit 2; }
	@$(ENGINE) build --build-arg WITH="$(WITH)" -t softsgx .
	@$(ENGINE) run --rm --network none softsgx
	@$(ENGINE) run --rm --network none softsgx softsgx doctor

clean:  ## remove everything that can be made again
	@rm -rf $(VENV) build dist src/*.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
