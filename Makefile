# Two commands need nothing but a clone: `make demo` and `make test`.
# ARGS goes to the tool behind a single check: make unit ARGS='-k chain -x'

TOX := .venv/bin/tox
ARGS ?=

# On a developer's machine a tier whose tools are missing is skipped, and says so. In CI that
# would be a check which silently does not run.
ifneq ($(filter-out 0 false,$(CI)),)
export QMPSNAP_REQUIRE ?= qemu,libvirt,guest,security,chaos,power,ledger,delivery,openstack
endif

.DEFAULT_GOAL := help
.PHONY: help setup demo test deb lint types unit fuzz nightly replay qemu layouts libvirt layouts-libvirt guest security pains chaos power simulation ledger delivery openstack nightly-openstack pythons record matrix clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18

setup: ## install what is missing: Debian packages, and .venv
	@.ci/setup

demo: setup ## a real QEMU with a tiny disk: create, write, delete, each step shown
	@.venv/bin/qmpsnap demo $(ARGS)
	@echo "The program is $(CURDIR)/.venv/bin/qmpsnap."

test: setup ## every check, two at a time
	@.venv/bin/python -m pip list --format freeze | xargs echo With:
	$(TOX) run-parallel --parallel 2 --parallel-no-spinner --no-list-dependencies

deb: setup ## dist/qmpsnap_…deb, for Debian 12 and 13
	@packaging/deb/build

lint: setup ## ruff: rules and formatting
types: setup ## mypy, strict
unit: setup ## tests that need nothing but Python
fuzz: setup ## mutated replies, XMLs and headers
nightly: setup ## the same with 100,000 cases of each: half an hour
replay: setup ## recordings of real guests of every version, read again
qemu: setup ## tests with a real QEMU
layouts: setup ## every layout of disks on a real QEMU
libvirt: setup ## tests with libvirt's QEMU driver
record: setup ## write fixtures/ again, with the QEMU in PATH
layouts-libvirt: setup ## every layout of disks under libvirt
matrix: setup ## the layouts on other releases' QEMU and libvirt; needs root
guest: setup ## tests with a real Linux and its guest agent
security: setup ## attacks, on both
pains: setup ## what hurts users of other tools, with and without our guards
simulation: setup ## operations and crashes on a simulated QEMU
power: setup ## the power fails, with any part of what was not synced
chaos: setup ## random sequences and faults, on both roads
delivery: setup ## updates to a volume service with faults, and senders that are killed
ledger: setup ## the ledger, in SQLite and in a private PostgreSQL and MariaDB
openstack: setup ## real Nova and Cinder; needs root, and installs them on its first run
nightly-openstack: setup ## upstream's tests of Nova's libvirt driver, all, with our class

lint types unit fuzz nightly replay qemu layouts libvirt layouts-libvirt guest security pains chaos power simulation ledger delivery openstack nightly-openstack record matrix:
	$(TOX) run -e $@ -- $(ARGS)

# One that is not installed is left out; when none is, tox fails.
pythons: setup ## unit, replay and fuzz on Python 3.11 to 3.14, and with the oldest libraries
	$(TOX) run -e py311,py312,py313,py314,lowest --skip-missing-interpreters true -- $(ARGS)

clean: ## remove .venv, .tox and every cache
	rm -rf .venv .tox .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
