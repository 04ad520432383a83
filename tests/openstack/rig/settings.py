"""Changes of an oslo.config file, one setting a line."""

from __future__ import annotations

from collections.abc import Iterable


def with_settings(text: str, settings: Iterable[str]) -> str:
    """
    Replace keys of an oslo.config file.

    Args:
        text: The file, each section once.
        settings: `SECTION.KEY=VALUE`. A key that is given twice stays twice: a list (MultiStrOpt).
    """
    given: dict[str, dict[str, list[str]]] = {}
    for setting in settings:
        place, _, value = setting.partition("=")
        section, _, key = place.rpartition(".")
        given.setdefault(section, {}).setdefault(key, []).append(value)
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            lines += _lines(given.pop(section, {}))
            section = line.strip("[]")
        elif line.partition("=")[0].strip() in given.get(section, {}):
            continue
        lines.append(line)
    lines += _lines(given.pop(section, {}))
    for name, keys in given.items():
        lines += [f"[{name}]", *_lines(keys)]
    return "\n".join(lines) + "\n"


def _lines(keys: dict[str, list[str]]) -> list[str]:
    return [f"{key} = {value}" for key, values in keys.items() for value in values]
