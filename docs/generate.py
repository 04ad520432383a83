"""
Write the pages of the reference that follow from the code.

    docs/reference/cli.md                      from the click commands
    docs/man/qmpsnap.1                         from the same
    docs/reference/exit-codes-and-errors.md    from the error classes
    docs/reference/findings.md                 from the table of rules
    docs/reference/layouts.md                  from fixtures/ and tests/layouts/
    docs/reference/situations.md               from the tests that are marked as situations
    docs/reference/attacks.md                  from fixtures/attacks.json, what the tests saw
    docs/reference/benchmarks-openstack.md     from fixtures/benchmarks-openstack.json, as measured
    docs/explanation/rooms.dot, rooms.svg      from the imports

    python docs/generate.py            write what is stale
    python docs/generate.py --check    write nothing; exit code 1 when something is stale

The pages are laid out here and not by click, so that they do not change with click's version.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

import qmpsnap
from qmpsnap.cli.command import Command
from qmpsnap.cli.group import LazyGroup
from qmpsnap.cli.main import cli
from qmpsnap.errors import (
    Ambiguous,
    Failed,
    NotFound,
    OfKnown,
    QmpsnapError,
    Refused,
    Unknown,
    Unreachable,
)
from qmpsnap.findings.finding import RULES, Rule

REFERENCE: Final = Path(__file__).resolve().parent / "reference"

ATTACKS: Final = REFERENCE.parents[1] / "fixtures" / "attacks.json"

NOTICE: Final = "<!-- Written by docs/generate.py; change the code and run it again. -->"

EXIT_CODES: Final = {
    0: "done",
    1: "failed: it ran and stopped; the message says in what state the chain was left",
    2: "usage: the command line, or a JSON argument, is not understood",
    3: "`verify` or `audit` found an error or a warning; `doctor` found something missing",
    4: "refused: nothing that changes the guest or its files was done",
    5: "the block job failed; the chain is as it was",
    6: "interrupted, the connection broke, or a snapshot is there and not as it should be: look before acting",
    7: "the guest cannot be reached; nothing was sent",
}

CHANGED: Final = {
    "no": "no",
    "yes": "yes: read the message",
    "unknown": "unknown: look before acting",
}


def pages() -> dict[Path, str]:
    """Return the text of every generated page, by its path."""
    from docs import (
        layouts,
        manual,
        openstack_figures,
        rooms,
        situations,
    )  # found only once the checkout is on sys.path

    return {
        REFERENCE / "cli.md": command_line(),
        REFERENCE.parent / "man" / "qmpsnap.1": manual.page(cli, all_commands(), EXIT_CODES),
        REFERENCE / "exit-codes-and-errors.md": errors(),
        REFERENCE / "findings.md": findings(),
        REFERENCE / "layouts.md": layouts.page(NOTICE),
        REFERENCE / "situations.md": situations.page(NOTICE),
        REFERENCE / "attacks.md": attacks(),
        REFERENCE / "benchmarks-openstack.md": openstack_figures.page(),
        rooms.FOLDER / "rooms.dot": rooms.dot(),
    }


def stale() -> list[Path]:
    """Return the pages that are missing, or are not what the code says now."""
    return [
        path
        for path, text in pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


# The command line.


def all_commands() -> list[tuple[str, Command]]:
    """Return every command that is not hidden, by its full name, in the order of `--help`."""
    found: list[tuple[str, Command]] = []
    for name, command in _commands_of(cli):
        if isinstance(command, LazyGroup):
            found += [(f"{name} {below}", one) for below, one in _commands_of(command)]
        else:
            found.append((name, command))
    return found


def _commands_of(group: LazyGroup) -> Iterator[tuple[str, Any]]:
    with click.Context(group) as context:
        for name in group.list_commands(context):
            yield name, group.get_command(context, name)


def command_line() -> str:
    """Render the page of all commands."""
    commands = all_commands()
    lines = [
        "# Command line",
        "",
        NOTICE,
        "",
        "`qmpsnap [OPTIONS] COMMAND [ARGUMENTS]`: global options may be given before the command or "
        "after it. One that is given twice must have the same value both times.",
        "",
        "With `--qmp SOCKET` the argument GUEST is left out: a socket belongs to one guest. "
        "Without it GUEST is a name or UUID that libvirt knows.",
        "",
        "DISK is a target (`vda`), a serial (the volume id), a device id or a node name; "
        "`qmpsnap disks` shows them.",
        "",
        "Results go to standard output; messages, notes and progress go to standard error. "
        "A table that does not fit the terminal is shown as a block for each row; in a pipe each row "
        "is one line. The documents of `-o json` are described in [JSON](json.md), "
        "the exit codes in [Exit codes and errors](exit-codes-and-errors.md).",
        "",
        "`jobs`, and `wait`, `cancel`, `pause` and `set-speed` without `job`, are the names of an "
        "earlier version and still work.",
        "",
        "## Global options",
        "",
        *_options(cli),
        "",
        "## Commands",
    ]
    for title, entries in cli.sections.items():
        names = [name for name, _ in commands if name.split(" ")[0] in entries]
        lines += ["", f"**{title}**", ""]
        by_name = dict(commands)
        lines += [f"- [`{name}`](#{_anchor(name)}): {_summary(by_name[name])}" for name in names]
    for name, command in commands:
        lines += ["", f"### {name}", "", "```", _usage(name, command), "```", "", *_help(command)]
        lines += ["", "```console", *(f"$ {example}" for example in command.examples), "```"]
        lines += ["", *_options(command)]
    return "\n".join(lines) + "\n"


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _usage(name: str, command: click.Command) -> str:
    words = ["qmpsnap", name, "[OPTIONS]"]
    for argument in _arguments(command):
        word = (argument.metavar or argument.name or "").upper()
        words.append(word if argument.required else f"[{word}]")
    return " ".join(words)


def _arguments(command: click.Command) -> list[click.Argument]:
    return [one for one in command.params if isinstance(one, click.Argument)]


def _paragraphs(command: click.Command) -> list[str]:
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _summary(command: click.Command) -> str:
    return _paragraphs(command)[0]


def _help(command: click.Command) -> Iterator[str]:
    for number, paragraph in enumerate(_paragraphs(command)):
        if number:
            yield ""
        yield _as_text(paragraph)


def _options(command: click.Command) -> Iterator[str]:
    yield "| option | what it does |"
    yield "|---|---|"
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            yield f"| {_option_names(option)} | {_cell(_option_help(option))} |"
    yield "| `-h`, `--help` | Show the help and exit. |"


def _option_names(option: click.Option) -> str:
    value = ""
    if isinstance(option.type, click.Choice) and not option.metavar:
        value = " " + "\\|".join(str(choice) for choice in option.type.choices)
    elif not option.is_flag and not option.count:
        value = " " + (option.metavar or (option.name or "").upper())
    return ", ".join(f"`{name}`" for name in option.opts) + (f" `{value.strip()}`" if value else "")


def _option_help(option: click.Option) -> str:
    text = " ".join((option.help or "").split())
    if option.show_default and not option.is_flag:
        text += f" [default: {option.default}]"
    return text


# Exit codes and errors.


def errors() -> str:
    """Render the page of exit codes and errors."""
    classes = sorted(error_classes(), key=lambda one: (one.exit_code, one.__name__))
    ours = [one for one in classes if not _is_of_demo(one)]
    demo = [one for one in classes if _is_of_demo(one)]
    lines = [
        "# Exit codes and errors",
        "",
        NOTICE,
        "",
        "Every error answers one question first: did anything change?",
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()),
        "",
        "A signal (Ctrl-C, SIGTERM, SIGHUP) before anything was begun ends with 6 as well, and says "
        "that nothing was under way.",
        "",
        "## Errors",
        "",
        "The id is the name of the error class. It is stable; the texts are not. "
        "With `-o json` or `-o yaml` an error is one line of JSON on standard error, "
        "with the id in `error` (see [JSON](json.md#an-error)).",
        "",
        "The kind says what the caller may do next: after "
        + "; after ".join(f"**{kind}**, {text}" for kind, text in _KINDS.items())
        + ".",
        "",
        *_table(ours),
        "",
        "Only `qmpsnap demo` can end with these, which are about its own throw-away guests:",
        "",
        *_table(demo),
        "",
        "## Messages",
        "",
        "Words in braces are placeholders.",
    ]
    for one in classes:
        lines += ["", f"### {one.__name__}", "", f"> {_template(one.msg)}"]
        if one.remedy and _template(one.remedy) != "{advice}":
            lines += [">", f"> {_template(one.remedy)}"]
    return "\n".join(lines) + "\n"


_KINDS: Final = {
    "Refused": "mend the cause and try again: nothing was sent that changes anything",
    "Unreachable": "the same: it is a kind of Refused with an exit code of its own",
    "Failed": "read in what state the chain was left",
    "Unknown": "look at the guest with `qmpsnap chain` before anything else",
}


def error_classes() -> list[type[QmpsnapError]]:
    """Return every concrete error class of the package."""
    for module in pkgutil.walk_packages(qmpsnap.__path__, "qmpsnap."):
        if module.name.endswith(".__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError:  # of Nova or Cinder, whose services have no command
            if ".openstack." not in module.name:
                raise
    kinds = {QmpsnapError, Refused, Unreachable, Failed, Unknown, OfKnown, NotFound, Ambiguous}
    return [one for one in _subclasses(QmpsnapError) if one not in kinds]


def _subclasses(of: type[QmpsnapError]) -> Iterator[type[QmpsnapError]]:
    for one in of.__subclasses__():
        if one.__module__.startswith("qmpsnap."):  # not those of a test
            yield one
            yield from _subclasses(one)


def _is_of_demo(error: type[QmpsnapError]) -> bool:
    return error.__module__.startswith("qmpsnap.demo")


def _table(classes: list[type[QmpsnapError]]) -> Iterator[str]:
    yield "| id | exit code | kind | changed anything? | what it is |"
    yield "|---|---|---|---|---|"
    yield from (_row(one) for one in classes)


def _row(error: type[QmpsnapError]) -> str:
    kinds = (Unreachable, Refused, Failed, Unknown)  # the first is one of the second
    kind = next(one.__name__ for one in kinds if issubclass(error, one))
    first = (error.__doc__ or "").strip().partition("\n\n")[0]
    cells = (
        f"[`{error.__name__}`](#{error.__name__.lower()})",
        str(error.exit_code),
        kind,
        CHANGED[error.changed],
        _cell(" ".join(first.split())),
    )
    return f"| {' | '.join(cells)} |"


def _template(text: str) -> str:
    """`{self.path!r}` as `{path}`."""
    return _as_text(re.sub(r"\{self\.(\w+)[^}]*\}", r"{\1}", text))


# Findings.


def findings() -> str:
    """Render the page of all findings."""
    lines = [
        "# Findings",
        "",
        NOTICE,
        "",
        "What `qmpsnap verify` and `qmpsnap audit` can find. The ids are stable; severities and "
        "texts may change. How to run an audit: [Audit a host](../howto/audit-a-host.md). What "
        "`-o json` and `-o sarif` print: [JSON](json.md#findings).",
        "",
        "| severity | meaning | exit code |",
        "|---|---|---|",
        "| `error` | somebody reads or writes the wrong bytes, or will at the next start | 3 |",
        "| `warning` | it may be intended; if it is not, it is just as harmful | 3 |",
        "| `note` | worth knowing | 0 |",
        "",
        "Commands in remedies are for a guest that is off. In a finding they contain the real file "
        "names. FORMAT is printed where no witness states a format beyond doubt: put in the format "
        "that the file was made with. Whoever made the file knows it; its bytes do not tell.",
        "",
        "| id | severity | what it is |",
        "|---|---|---|",
        *(
            f"| [`{rule.id}`](#{rule.id}) | {rule.severity} | {_cell(rule.title)} |"
            for rule in RULES
        ),
    ]
    for rule in RULES:
        lines += _rule(rule)
    return "\n".join(lines) + "\n"


def _rule(rule: Rule) -> Iterator[str]:
    yield from ("", f"## {rule.id}", "")
    yield f"**{rule.severity.capitalize()}.** {_as_text(rule.title)}."
    yield from ("", _as_text(rule.help), "", f"*What to do.* {_as_text(rule.remedy)}")


# Attacks.

_FROM_TESTS: Final = (
    "<!-- Written by docs/generate.py from fixtures/attacks.json, which "
    "`make security ARGS=--regenerate-attacks` writes. -->"
)


def attacks() -> str:
    """Render the page of attacks on formats and file names."""
    seen = json.loads(ATTACKS.read_text(encoding="utf-8"))
    lines = [
        "# Attacks",
        "",
        _FROM_TESTS,
        "",
        "The attacks that `tests/security/` tries against qmpsnap, what qmpsnap says, and for "
        f"comparison what `qemu-img` {seen['qemu-img']} makes of the same file when it is given no "
        "format. The victim is a file of the host outside of the volume's folder, with a secret in "
        "it. In no case does qmpsnap open the victim (checked with inotify), and in no case is the "
        "secret in any output or file.",
        "",
        "Why a raw file's content is no evidence: [How formats are known](../explanation/formats.md).",
        "",
        "## The guest writes a header into its raw disk",
        "",
        "It does so before it is started, while it runs, over NBD, between snapshots, and into an "
        "overlay that a commit then copies down into the base; with libvirt and without; with "
        "libvirtd restarted in between. A header inside the content of a qcow2 volume is tried as "
        "well.",
        "",
        *_attack_table("the header is", "qmpsnap says", seen["headers"]),
        "",
        "## The volume service hands over an overlay",
        "",
        "A file that already exists under the name of the new snapshot. All of these are refused "
        "with exit code 4 and the status `error`, and nothing is touched.",
        "",
        *_attack_table("the overlay is", "qmpsnap refuses", seen["overlays"]),
        "",
        "## Names and chains that lead out",
        "",
        "- A name with a slash, `..`, a colon or a control character is refused in every field "
        "of the dictionaries, and as a snapshot's name.",
        "- A bare name means a file in the active file's folder. When a chain leads out of that "
        "folder (to a template, or, because of a header, to somebody else's file), no commit writes "
        "there, and `--remove-file` removes nothing there.",
        "- A volume whose own name looks like an address (`nbd:…`) is recorded in headers as "
        "`./nbd:…`.",
        "",
        "## Guests that were started without a format",
        "",
        "- Domain XML without a format: libvirt opens the disk as raw, and `chain` says so.",
        "- An overlay that records no backing format, or `file`: libvirt 9.0 lets QEMU probe the "
        "base, and the guest reads the victim. `chain` shows what is open; operations are refused.",
    ]
    return "\n".join(lines) + "\n"


def _attack_table(what: str, ours: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    info, convert = "`qemu-img info` says", "`qemu-img convert`"
    yield f"| {what} | {info} | {convert} | {ours} |"
    yield "|---|---|---|---|"
    for row in rows:
        cells = (row["title"], *_probing(row["probing"]), row["qmpsnap"])
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _probing(seen: dict[str, Any] | None) -> tuple[str, str]:
    if seen is None:
        return "not tried", "not tried"
    said = seen["format"] or "fails"
    if seen["named"]:
        said += ", and names the victim"
    if seen["opened"]:
        said += ", and opens the victim"
    return said, "copies the secret" if seen["leaked"] else "-"


# Markdown.


def _cell(text: str) -> str:
    return _as_text(text).replace("|", "\\|")


def _as_text(text: str) -> str:
    """Escape what Markdown would take for something else, outside of code."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([<*])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def main(arguments: list[str]) -> int:
    """Write or check the pages; returns the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: python docs/generate.py [--check]", file=sys.stderr)
        return 2
    found = stale()
    for path in found:
        if arguments:
            print(f"{path} is stale: run python docs/generate.py", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages()[path], encoding="utf-8")
            print(f"wrote {path}")
            if path.suffix == ".dot":
                from docs import rooms

                rooms.draw()
    return 1 if arguments and found else 0


if __name__ == "__main__":
    sys.path.insert(0, str(REFERENCE.parents[1]))
    sys.exit(main(sys.argv[1:]))
