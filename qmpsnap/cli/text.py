"""Text for a terminal: nothing in a name acts on it, and no name is torn. Pure."""

from __future__ import annotations

INDENT = "  "


class Safe(str):
    """Text that is safe for a terminal as it stands, such as JSON that is to be pasted."""

    __slots__ = ()


def printable(text: object) -> str:
    """
    Escape control characters (terminal escapes, newlines) and bytes that are not UTF-8.

    And the backslash, or a name with an escape written out would look like one with that byte.
    """
    if isinstance(text, Safe):
        return text
    return "".join(
        character
        if character.isprintable() and character != "\\"
        else character.encode("unicode_escape", "surrogateescape").decode("ascii", "replace")
        if not 0xDC80 <= ord(character) <= 0xDCFF
        else f"\\x{ord(character) - 0xDC00:02x}"
        for character in str(text)
    )


def json_text(value: object, *, encoding: str, indent: int | None = None) -> Safe:
    """JSON that can be pasted: what a terminal cannot show is escaped as JSON does it."""
    import json

    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if all(map(str.isprintable, text.split("\n"))) and encodes(text, encoding):
        return Safe(text)
    return Safe(json.dumps(value, indent=indent))


def encodes(text: str, encoding: str) -> bool:
    """Whether an encoding has all of these characters."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def cells(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0
        if unicodedata.combining(character)
        else 2
        if unicodedata.east_asian_width(character) in "WF"
        else 1
        for character in text
    )


def fold(text: str, width: int | None, indent: str = "") -> list[str]:
    """
    Break a text between words; what is longer than a line, a file name, stands out over its end.

    Args:
        text: Words with blanks between them.
        width: Columns; None for a pipe, where nothing is folded.
        indent: Stands before each line.
    """
    if width is None or cells(indent + text) <= width:
        return [indent + text]
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and cells(indent + longer) > width:
            lines.append(indent + line)
            longer = word
        line = longer
    return [*lines, indent + line]
