"""A monitor that answers from a table, and remembers what it was sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from queue import SimpleQueue

from qmpsnap.monitor.abilities import PROBES, Ability
from qmpsnap.monitor.base import DEFAULT_TIMEOUT_S, CommandFailed, Event, Query, one_by_one

Arguments = Mapping[str, object]


class Each:
    """Answers in turn; the last one again and again."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    def next(self) -> object:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


class ScriptedMonitor:
    """
    Answers each command from a table.

    An answer is a value, an exception to raise, a function of the arguments, or `Each`. A command
    that is not in the table is one that this QEMU does not know. Probes of what it can do are
    answered by themselves, as QEMU does.
    """

    def __init__(
        self, answers: Mapping[str, object], *, can: Collection[Ability] = frozenset()
    ) -> None:
        self.answers = dict(answers)
        self.can = can
        self.probes: list[Ability] = []
        """What was probed for, in order."""
        self.sent: list[tuple[str, dict[str, object]]] = []
        self.hops: list[list[str]] = []
        """Names of what was sent together, hop by hop."""
        self.events: SimpleQueue[Event] = SimpleQueue()

    def execute(
        self,
        command: str,
        arguments: Arguments | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> object:
        given = dict(arguments or {})
        for ability, probe in PROBES.items():
            if (command, given) == probe:
                self.probes.append(ability)
                raise self._about(ability)
        self.sent.append((command, given))
        if command not in self.answers:
            raise not_found(command)
        answer = self.answers[command]
        if isinstance(answer, Each):
            answer = answer.next()
        if callable(answer):
            answer = answer(given)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _about(self, ability: Ability) -> CommandFailed:
        command, arguments = PROBES[ability]
        *_, name = arguments
        if ability in self.can:
            return refused(command, f"Invalid parameter type for '{name}', expected: boolean")
        return refused(command, f"Parameter '{name}' is unexpected")

    def execute_all(
        self, queries: Sequence[Query], timeout: float = DEFAULT_TIMEOUT_S
    ) -> list[object]:
        self.hops.append([command for command, _ in queries])
        return one_by_one(self.execute, queries)

    def close(self) -> None:
        """Nothing is open."""

    def commands(self) -> list[str]:
        """Names of what was sent, in order."""
        return [command for command, _ in self.sent]

    def arguments_of(self, command: str) -> list[dict[str, object]]:
        """Arguments of each time this command was sent."""
        return [arguments for name, arguments in self.sent if name == command]


def not_found(command: str) -> CommandFailed:
    """As QEMU words it."""
    return CommandFailed(command, "CommandNotFound", f"The command {command} has not been found")


def refused(command: str, description: str = "no") -> CommandFailed:
    """An error reply of the common class."""
    return CommandFailed(command, "GenericError", description)


def schema(**commands: tuple[str, ...]) -> list[object]:
    """A small `query-qmp-schema`: argument names by command, spelled with underscores."""
    entities: list[object] = []
    for number, (command, arguments) in enumerate(commands.items()):
        members = [{"name": name.replace("_", "-"), "type": "str"} for name in arguments]
        entities.append({"meta-type": "object", "name": str(number), "members": members})
        entities.append(
            {"meta-type": "command", "name": command.replace("_", "-"), "arg-type": str(number)}
        )
    return entities
