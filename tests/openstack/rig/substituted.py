"""
Run upstream's own unit tests with a class of ours in place of theirs, and print what did not pass.

    python -m tests.openstack.rig.substituted MODULE[@TESTCASE][:THEIRS=OURS,…] …

THEIRS is the full name of a class. While the tests are imported and run, a stand-in is in the place of
the driver's module, with one attribute replaced: decorators (`mock.patch.object(driver.Class, …)`) and
full names (`mock.patch("….Class.method")`) lead to our class as well. The driver's own module is left
alone, since its methods say super(NfsDriver, self), which would recurse if that name were ours; what
tests patch in the stand-in, they patch in the real one. Static methods are repeated in our class:
fixtures.MonkeyPatch takes one that is inherited for a method of the instance.

pytest cannot run these tests (testtools removes an attribute that it needs); unittest can.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
import unittest
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from qmpsnap.openstack.nova import keeper


class StandIn(types.ModuleType):
    """A module with some of its attributes replaced."""

    def __init__(self, real: types.ModuleType, **ours: object) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(_real=real, _were={}, **ours)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self._real, name):
            self._were.setdefault(name, []).append(getattr(self._real, name))
        setattr(self._real, name, value)

    def __delattr__(self, name: str) -> None:
        """What is not in our own dictionary is deleted after a patch, as if it had not been there."""
        if self._were.get(name):
            setattr(self._real, name, self._were[name].pop())
        else:
            delattr(self._real, name)


@contextmanager
def _replaced(theirs: str, ours: str) -> Iterator[None]:
    """Let `from PACKAGE import DRIVER`, and the module's full name, give a stand-in for a while."""
    place, _, attribute = theirs.rpartition(".")
    package, _, alias = place.rpartition(".")
    package_of_ours, _, name = ours.rpartition(".")
    real = importlib.import_module(place)
    ours_now = getattr(importlib.import_module(package_of_ours), name)
    theirs_now = getattr(real, attribute)
    for method, value in vars(theirs_now).items():
        if isinstance(value, staticmethod) and method not in vars(ours_now):
            setattr(ours_now, method, value)
    stand_in = StandIn(real, **{attribute: ours_now})
    exported = getattr(sys.modules[package], attribute, None) is theirs_now
    setattr(sys.modules[package], alias, stand_in)
    sys.modules[place] = stand_in
    if exported:
        setattr(sys.modules[package], attribute, ours_now)
    try:
        yield
    finally:
        setattr(sys.modules[package], alias, real)
        sys.modules[place] = real
        if exported:
            setattr(sys.modules[package], attribute, theirs_now)


def suite_of(target: str, stack: ExitStack) -> unittest.TestSuite:
    """The tests that a target names, with its classes replaced until `stack` ends."""
    place, _, changes = target.partition(":")
    name, _, only = place.partition("@")
    importlib.import_module(name.rpartition(".")[0])  # it patches, or forbids, what others import
    for change in filter(None, changes.split(",")):
        theirs, _, ours = change.partition("=")
        stack.enter_context(_replaced(theirs, ours))
    module = importlib.import_module(name)
    loader = unittest.defaultTestLoader
    return loader.loadTestsFromName(only, module) if only else loader.loadTestsFromModule(module)


def main(*targets: str) -> None:
    """Print a line of JSON: how many passed and were skipped, and the names of those that failed."""
    warnings.simplefilter("ignore")
    if any(target.startswith("nova.") for target in targets):
        os.environ.setdefault("OS_NOVA_DISABLE_EVENTLET_PATCHING", "1")
        # Its thread outlives a test, and later ones replace os.stat and os.unlink, and count calls.
        keeper.Keeper.start = lambda _keeper: None  # type: ignore[method-assign, assignment]
    with ExitStack() as stack:
        suite = unittest.TestSuite(suite_of(target, stack) for target in targets)
        result = unittest.TextTestRunner(stream=sys.stderr).run(suite)
    failed = sorted(test.id() for test, _ in result.failures + result.errors)
    skipped = len(result.skipped)
    passed = result.testsRun - len(failed) - skipped
    print(json.dumps({"passed": passed, "skipped": skipped, "failed": failed}), flush=True)
    os._exit(0)  # threads of upstream's fixtures may be left


if __name__ == "__main__":
    main(*sys.argv[1:])
