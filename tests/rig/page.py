"""The examples of a page: its Python, and what that prints."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PAGE: Final = Path(__file__).parents[2] / "docs" / "howto" / "use-as-a-library.md"
_BLOCK: Final = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """One block of Python."""

    code: str
    prints: str


def examples(chosen: Callable[[str], bool]) -> Iterator[Example]:
    """Those of the library's page, in their order, whose code is chosen."""
    for code, prints in _BLOCK.findall(_PAGE.read_text()):
        if chosen(code):
            yield Example(code, prints)


def run(examples: Iterator[Example], words: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """
    Run examples one after the other; returns what each should print, and what it has printed.

    Args:
        examples: In order; what one defines, the next may use.
        words: What stands in the page, and what it is here.
    """
    names: dict[str, object] = {}
    told, printed = [], []
    for example in examples:
        code, prints = example.code, example.prints
        for word, here in words.items():
            code, prints = code.replace(word, here), prints.replace(word, here)
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(code, "example", "exec"), names)
        told.append(prints)
        printed.append(out.getvalue())
    return told, printed
