# Two commands need nothing but a clone: `make demo` and `make test`.
# ARGS goes to the tool behind a single check: make unit ARGS='-k chain -x'

TOX := .venv/bin/tox
ARGS ?=

# On a developer's machine a tier whose tools are missing is skipped, and says so. In CI that
# would be a check which silently does not run.
ifneq ($(filter-out 0 false,$(CI)),)
export QMPSNAP_REQUIRE ?= qemu,libvirt
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types unit qemu libvirt layouts-libvirt matrix clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18

setup: ## install what is missing: Debian packages, and .venv
	@.ci/setup

demo: setup ## a real QEMU with a tiny disk: create, write, delete, each step shown
	@.venv/bin/qmpsnap demo $(ARGS)

test: setup ## every check
	$(TOX) run

lint: setup ## ruff: rules and formatting
types: setup ## mypy, strict
unit: setup ## tests that need nothing but Python
qemu: setup ## tests with a real QEMU
libvirt: setup ## tests with libvirt's QEMU driver
layouts-libvirt: setup ## every layout of disks under libvirt
matrix: setup ## the layouts on other releases' QEMU and libvirt; needs root

lint types unit qemu libvirt layouts-libvirt matrix:
	$(TOX) run -e $@ -- $(ARGS)

clean: ## remove .venv, .tox and every cache
	rm -rf .venv .tox .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
