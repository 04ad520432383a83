"""Every error of the package: it can be said, says what to do, and exits as documented."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Iterator
from typing import Any, ClassVar, cast, get_origin, get_type_hints

import pytest

import qmpsnap
from qmpsnap.errors import (
    Ambiguous,
    Changed,
    Failed,
    NotFound,
    OfKnown,
    QmpsnapError,
    Refused,
    Unknown,
    Unreachable,
)
from qmpsnap.operations.guards import Guard

FAMILIES = (
    QmpsnapError,
    Refused,
    Failed,
    Unknown,
    Unreachable,
    OfKnown,
    NotFound,
    Ambiguous,
)
SAMPLES: dict[object, object] = {
    bool: True,
    str: "{braces} of a hostile name",
    Guard: Guard.BITMAPS,
    int: 7,
    float: 1.5,
    str | None: None,
    tuple[str, ...]: ("a", "b"),
}
"""A value for each type that a field of an error has."""


def _modules() -> Iterator[str]:
    for module in pkgutil.walk_packages(qmpsnap.__path__, "qmpsnap."):
        if not module.name.endswith("__main__") and ".openstack." not in module.name:
            yield module.name


def _errors() -> list[type[QmpsnapError]]:
    found = {
        member
        for name in _modules()
        for _, member in inspect.getmembers(importlib.import_module(name), inspect.isclass)
        if issubclass(member, QmpsnapError) and member not in FAMILIES
    }
    return sorted(found, key=lambda error: error.__qualname__)


ERRORS = _errors()


def make(error: type[QmpsnapError]) -> QmpsnapError:
    """One of these, with any facts."""
    own = vars(error).get("__init__")
    hints = get_type_hints(own or error)
    names = inspect.signature(error).parameters if own else error.facts
    facts: dict[str, Any] = {name: SAMPLES[hints[name]] for name in names}
    return error(**facts)


def test_there_are_many() -> None:
    assert len(ERRORS) > 30


def test_id_is_the_name_and_stands_for_one_class() -> None:
    assert len({error.__name__ for error in ERRORS}) == len(ERRORS)
    assert [make(error).id for error in ERRORS] == [error.__name__ for error in ERRORS]


@pytest.mark.parametrize("error", ERRORS)
class TestEach:
    def test_message_is_its_own_and_can_be_formatted(self, error: type[QmpsnapError]) -> None:
        text = str(make(error))
        assert error.msg != QmpsnapError.msg
        assert text
        assert "{self" not in text

    def test_way_out_can_be_formatted(self, error: type[QmpsnapError]) -> None:
        assert "{self" not in make(error).way_out

    def test_is_of_one_family_and_says_what_it_says(self, error: type[QmpsnapError]) -> None:
        made = make(error)
        family = [one for one in (Refused, Failed, Unknown) if isinstance(made, one)]
        documented: dict[type[QmpsnapError], tuple[set[int], set[str]]] = {
            Refused: ({4}, {"no"}),
            Failed: ({1, 5}, {"no", "yes", "unknown"}),
            Unknown: ({6}, {"unknown"}),
        }
        codes, changed = documented[family[0]]
        if isinstance(made, Unreachable):
            codes = {7}
        if error.msg.startswith("interrupted"):
            codes = {6}
        if error.__module__.startswith("qmpsnap.cli."):
            codes = codes | {2}  # usage
        assert len(family) == 1
        assert made.exit_code in codes
        assert made.changed in changed

    def test_can_be_raised_again_and_again(self, error: type[QmpsnapError]) -> None:
        made = make(error)
        assert made == made
        assert made != make(error)
        assert hash(made)
        with pytest.raises(error):
            raise made

    def test_facts_are_the_declared_ones(self, error: type[QmpsnapError]) -> None:
        declared = {
            name for name, hint in get_type_hints(error).items() if get_origin(hint) is not ClassVar
        }
        assert set(error.facts) == declared
        assert vars(make(error)).keys() == declared

    def test_survives_another_process(self, error: type[QmpsnapError]) -> None:
        if "__init__" not in vars(error):
            made = make(error)
            again = pickle.loads(pickle.dumps(made))
            assert (type(again), str(again), vars(again)) == (error, str(made), vars(made))

    def test_docstring_is_its_own(self, error: type[QmpsnapError]) -> None:
        assert error.__doc__


class TwoFacts(Refused):
    msg = "{self.first} and {self.second}"

    first: str
    second: int = 2


class ThreeFacts(TwoFacts):
    changed: ClassVar[Changed] = "no"

    second: int = 20
    third: str = "c"


class TestFacts:
    def test_in_order_or_by_name(self) -> None:
        assert str(TwoFacts("a", 1)) == str(TwoFacts(second=1, first="a")) == "a and 1"

    def test_defaults(self) -> None:
        assert repr(TwoFacts("a")) == "TwoFacts(first='a', second=2)"

    def test_of_the_base_come_first(self) -> None:
        assert repr(ThreeFacts("a")) == "ThreeFacts(first='a', second=20, third='c')"

    @pytest.mark.parametrize(
        ("values", "named"),
        [
            pytest.param((), {}, id="none"),
            pytest.param((), {"second": 1}, id="one is missing"),
            pytest.param(("a", 1, 2), {}, id="too many"),
            pytest.param(("a",), {"first": "b"}, id="given twice"),
            pytest.param(("a",), {"other": 1}, id="unknown"),
        ],
    )
    def test_wrong_ones(self, values: tuple[object, ...], named: dict[str, object]) -> None:
        with pytest.raises(TypeError, match=r"TwoFacts\(first, second\) was given"):
            cast("Any", TwoFacts)(*values, **named)


def test_job_that_failed_is_told_from_everything_else() -> None:
    """Exit code 5: the job failed, and the chain is intact."""
    failed = {error.__name__ for error in ERRORS if error.exit_code == 5}
    assert failed == {"JobFailed", "StoppedByChange", "TimedOut"}


def test_exit_codes_of_the_families() -> None:
    assert {error: error.exit_code for error in FAMILIES} == {
        QmpsnapError: 1,
        Refused: 4,
        Failed: 1,
        Unknown: 6,
        Unreachable: 7,
        OfKnown: 4,
        NotFound: 4,
        Ambiguous: 4,
    }
