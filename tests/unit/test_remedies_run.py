"""
Every remedy that an error prints is run by a test, or says nothing that could be run.

A test that runs one is marked by `@remedy(…)` (`tests/rig/remedies.py`), in the state in which it is
printed. An error that is new is in one of the two, or this fails.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import qmpsnap
from qmpsnap.errors import QmpsnapError
from qmpsnap.operations.guards import Guard, WouldHarm

TESTS: Final = Path(__file__).parents[1]

LOOKS: Final = frozenset(
    {
        "AgentRefused",
        "AgentSilent",
        "AgentUnreachable",
        "AlreadyActive",
        "AnotherFile",
        "BadHeader",
        "BadName",
        "BadTranscript",
        "CancelUnseen",
        "CannotConnect",
        "CannotList",
        "CannotMake",
        "CannotPrint",
        "CannotVerify",
        "ChainUnexpected",
        "CommandFailed",
        "CommandTimedOut",
        "ConnectionLost",
        "ContentChanged",
        "DoesNotFit",
        "FileFailed",
        "FileHeld",
        "FileNotHere",
        "FormatUncertain",
        "FormatUnknown",
        "GraphvizFailed",
        "GraphvizMissing",
        "GuestDidNotStart",
        "GuestNotFound",
        "GuestNotRunning",
        "JobEndedBadly",
        "JobUnsuitable",
        "LedgerNewer",
        "LedgerUnreachable",
        "LedgerUrl",
        "LibvirtMissing",
        "LibvirtUnreachable",
        "LostWhileReading",
        "MalformedReply",
        "MalformedXml",
        "MonitorBusy",
        "NoFolder",
        "NoSuchFile",
        "NoTranscript",
        "NotJson",
        "NotOnThisHost",
        "NotQmp",
        "NothingToSnapshot",
        "OnAnotherHost",
        "OnlyRecorded",
        "OutOfTurn",
        "OverlaySwapped",
        "PassthroughOff",
        "PointsElsewhere",
        "QemuImgFailed",
        "QemuImgMissing",
        "QemuMissing",
        "SqlalchemyMissing",
        "TooSlow",
        "TornReading",
        "UnderWay",
    }
)
"""They say what to look at, whom to ask, what to install or that a cause is to be mended."""


def printed() -> set[str]:
    """Ids of all errors that print a remedy; of a guard's, one for each guard."""
    for module in pkgutil.walk_packages(qmpsnap.__path__, "qmpsnap."):
        if not module.name.endswith("__main__") and ".openstack." not in module.name:
            importlib.import_module(module.name)
    guards = {f"WouldHarm/{guard}" for guard in Guard}
    found = {one.__name__ for one in _below(QmpsnapError) if one.remedy}
    return (found | guards) - {WouldHarm.__name__}


def _below(kind: type[QmpsnapError]) -> Iterator[type[QmpsnapError]]:
    for one in kind.__subclasses__():
        # Those of the plug-ins: only where Nova and Cinder are can they all be imported.
        if one.__module__.startswith("qmpsnap.") and ".openstack." not in one.__module__:
            yield one
            yield from _below(one)


def run() -> set[str]:
    """Ids in the marks of all tests."""
    return {
        argument.value
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        for mark in node.decorator_list
        if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name)
        if mark.func.id == "remedy"
        for argument in mark.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def test_each_is_run_or_has_nothing_to_run() -> None:
    known = run() | LOOKS
    assert not printed() - known, "mark the test that runs each of these by @remedy, or see LOOKS"
    assert not known - printed(), "no such remedy is printed"


def test_what_is_run_is_not_excused() -> None:
    assert not run() & LOOKS
