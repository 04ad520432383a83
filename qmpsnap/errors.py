"""
Every error answers one question first: did anything change?

    QmpsnapError
     ├── Refused   nothing that changes state was sent           exit 4
     ├── Failed    it ran and stopped, and it is known where     exit 1
     └── Unknown   the connection broke in mid-command: look     exit 6
                   before acting

Concrete classes stand next to the code that raises them. Each holds attributes, formats one
`msg` template with them, and says the way out in `remedy`. The class name is the stable id in
JSON output; texts may change, ids do not.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, dataclass_transform

Changed = Literal["no", "yes", "unknown"]


@dataclass_transform(eq_default=False)
class QmpsnapError(Exception):
    """
    Base of all errors that this project raises on purpose.

    The annotated names of a subclass are its facts, taken by `__init__` as a dataclass would;
    `msg` and `remedy` are templates over `self`. `@dataclass` itself compiles three functions for
    each class, 0.5 ms at import, and every command imports most of the hundred errors.
    """

    msg: ClassVar[str] = "qmpsnap error"
    remedy: ClassVar[str] = ""
    exit_code: ClassVar[int] = 1
    changed: ClassVar[Changed] = "unknown"
    facts: ClassVar[tuple[str, ...]] = ()
    """Names of the facts, in order."""
    stands: ClassVar[bool] = False
    """Of one that was raised: what was asked for has been done, though not as it should be."""

    def __init_subclass__(cls) -> None:
        """Collect the facts: those of the base first, a `ClassVar` is not one."""
        own = [name for name, hint in cls.__annotations__.items() if "ClassVar" not in str(hint)]
        cls.facts = tuple(dict.fromkeys((*cls.facts, *own)))

    def __init__(self, *values: Any, **named: Any) -> None:
        """
        Take the facts, in order or by name.

        Raises:
            TypeError: One is missing, unknown or given twice.
        """
        given = dict(zip(self.facts, values, strict=False)) | named
        missing = [one for one in self.facts if one not in given and not hasattr(self, one)]
        if missing or len(given) < len(values) + len(named) or not given.keys() <= {*self.facts}:
            raise TypeError(f"{self.id}({', '.join(self.facts)}) was given {values} and {named}")
        vars(self).update(given)
        super().__init__(*(getattr(self, one) for one in self.facts))  # for pickle and copy

    def __repr__(self) -> str:
        facts = ", ".join(f"{one}={getattr(self, one)!r}" for one in self.facts)
        return f"{self.id}({facts})"

    def __str__(self) -> str:
        return self.msg.format(self=self)

    @property
    def way_out(self) -> str:
        """What to do next; empty when the message already says it. With the notes of this one."""
        notes: list[str] = getattr(self, "__notes__", [])
        return " ".join(filter(None, (self.remedy.format(self=self), *notes)))

    @property
    def code(self) -> int:
        """The exit code: what stands, and is not as it should be, has to be looked at."""
        return Unknown.exit_code if self.stands else self.exit_code

    def standing(self) -> None:
        """Mark this error: what was asked for has been done."""
        vars(self)["stands"] = True

    @property
    def id(self) -> str:
        """The stable name of this error in JSON output."""
        return type(self).__name__


class Refused(QmpsnapError):
    """Nothing that changes state was sent: the guest and its files are as they were."""

    exit_code = 4
    changed: ClassVar[Changed] = "no"


class OfKnown(Refused):
    """Something was asked for by a name; the names that there are."""

    wanted: str
    known: tuple[str, ...]

    @property
    def known_text(self) -> str:
        """The names, or a word for none."""
        return ", ".join(self.known) or "none"


class NotFound(OfKnown):
    """Nothing of this kind answers to the name."""


class Ambiguous(OfKnown):
    """More than one does, so neither is touched."""


class Failed(QmpsnapError):
    """It ran and stopped. The message says in which state the chain was left."""

    exit_code = 1
    changed: ClassVar[Changed] = "yes"


class Unknown(QmpsnapError):
    """
    The connection broke in mid-command, so nobody can say whether it was carried out.

    qemu.qmp words it best (`ExecInterruptedError`): the protocol does not make it possible to
    know; the client will need to query the server.
    """

    exit_code = 6
    changed: ClassVar[Changed] = "unknown"


class Unreachable(Refused):
    """The guest cannot be reached, so nothing was sent to it."""

    exit_code = 7
