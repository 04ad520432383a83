"""
Run upstream's own unit tests with a class of ours in place of theirs.

    python -m tests.openstack.substituted MODULE:ALIAS.CLASS=OURS …

ALIAS.CLASS is the class as the test module writes it. The driver's own module is left alone: its
methods say `super(NfsDriver, self)`, which would recurse if that name were ours. So the alias in
the test module becomes a stand-in for the driver's module, with one attribute replaced. pytest
cannot run these tests (testtools removes an attribute that it needs).

Prints `N passed, N failed`, then the names of those that failed.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
import unittest
from typing import Any


class StandIn(types.ModuleType):
    """A module in which one attribute is ours; what a test patches in it is patched in the real one."""

    def __init__(self, real: types.ModuleType, **ours: object) -> None:
        super().__init__(real.__name__)
        self.__dict__.update(_real=real, **ours)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_real"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__dict__["_real"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__dict__["_real"], name)


def main(*arguments: str) -> None:
    """See above; ends the process, since upstream's services leave threads behind."""
    suite = unittest.TestSuite()
    for argument in arguments:
        name, _, change = argument.partition(":")
        module = importlib.import_module(name)
        reference, _, ours = change.partition("=")
        alias, _, attribute = reference.partition(".")
        package, _, cls = ours.rpartition(".")
        replaced = {attribute: getattr(importlib.import_module(package), cls)}
        setattr(module, alias, StandIn(getattr(module, alias), **replaced))
        suite.addTests(unittest.defaultTestLoader.loadTestsFromModule(module))
    result = unittest.TextTestRunner(verbosity=0).run(suite)
    bad = sorted(one.id().rpartition(".")[2] for one, _ in (*result.failures, *result.errors))
    print(f"{result.testsRun - len(bad)} passed, {len(bad)} failed")
    print("\n".join(bad), flush=True)
    os._exit(bool(bad))


if __name__ == "__main__":
    main(*sys.argv[1:])
