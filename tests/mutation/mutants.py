"""
Small changes of a module's source, one at a time: what a slip of the hand would be.

Found by `ast`, and made in the text itself, so that nothing else of the file changes. Words for
people are left alone: docstrings, and texts with blanks in them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_COMPARISONS: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
_ARITHMETIC: Final[dict[type[ast.operator], str]] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.FloorDiv: "*",
    ast.Div: "*",
    ast.Mod: "+",
    ast.BitOr: "&",
    ast.BitAnd: "|",
}
_TWINS: Final = {
    "min": "max",
    "any": "all",
    "partition": "rpartition",
    "startswith": "endswith",
    "removeprefix": "removesuffix",
    "lstrip": "rstrip",
    "union": "intersection",
}
_TWIN: Final = _TWINS | {there: here for here, there in _TWINS.items()}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the bytes from `start` to `end` of the source become `new`."""

    start: int
    end: int
    new: bytes
    line: int
    """Where, from 1."""
    what: str
    """The change, for people."""
    function: str | None
    """The function that it is in, as `co_qualname` names it; None: it is executed at import."""


def mutants_of(source: bytes) -> list[Mutant]:
    """All changes of a module, in the order of the text."""
    tree = ast.parse(source)
    return sorted(_Finder(source).found(tree), key=lambda one: (one.start, one.end, one.new))


class _Finder:
    def __init__(self, source: bytes) -> None:
        self._source = source
        self._lines = [0]
        for line in source.splitlines(keepends=True):
            self._lines.append(self._lines[-1] + len(line))

    def found(self, tree: ast.Module) -> Iterator[Mutant]:
        for statement in tree.body:
            yield from self._walk(statement, None, "")

    def _walk(self, node: ast.AST, function: str | None, within: str) -> Iterator[Mutant]:
        if _is_left_alone(node):
            return
        for start, end, new in self._changes(node):
            if self._source[start:end] != new:
                yield self._mutant(start, end, new, function)
        if isinstance(node, ast.FunctionDef):
            function, within = f"{within}{node.name}", f"{within}{node.name}.<locals>."
        if isinstance(node, ast.ClassDef):
            within = f"{within}{node.name}."
        for field, value in ast.iter_fields(node):
            if field in {"annotation", "returns", "decorator_list"} or (
                field == "keywords" and isinstance(node, ast.ClassDef)
            ):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self._walk(child, function, within)

    def _mutant(self, start: int, end: int, new: bytes, function: str | None) -> Mutant:
        line = next(n for n, begin in enumerate(self._lines) if begin > start)
        old = " ".join(self._source[start:end].decode().split())
        return Mutant(start, end, new, line, f"{old}  ->  {new.decode()}", function)

    def _at(self, node: ast.AST) -> tuple[int, int]:
        start = self._lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = self._lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        return start, end

    def _text(self, node: ast.AST) -> bytes:
        start, end = self._at(node)
        return self._source[start:end]

    def _changes(self, node: ast.AST) -> Iterator[tuple[int, int, bytes]]:
        match node:
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                for before, op, after in zip([left, *comparators], ops, comparators, strict=False):
                    yield self._between(before, after, _COMPARISONS[type(op)])
            case ast.BoolOp(op=op, values=values):
                word = b" or " if isinstance(op, ast.And) else b" and "
                yield *self._at(node), b"(" + word.join(map(self._whole, values)) + b")"
                joined = b" and " if isinstance(op, ast.And) else b" or "
                for one in values:
                    rest = [self._whole(other) for other in values if other is not one]
                    yield *self._at(node), b"(" + joined.join(rest) + b")"
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                yield self._between(left, right, _ARITHMETIC[type(op)])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield *self._at(node), self._text(operand)
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                yield *self._at(test), b"True"
                yield *self._at(test), b"False"
            case ast.comprehension(ifs=ifs):
                for one in ifs:
                    yield *self._at(one), b"True"
            case ast.Constant(value=value):
                yield from ((*self._at(node), new) for new in _other(value))
            case ast.Return(value=value) if value is not None and not _is_nothing(value):
                yield *self._at(value), b"None"
            case ast.Raise() | ast.Continue() | ast.Break() | ast.AugAssign():
                yield *self._at(node), b"pass"
            case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()):
                yield *self._at(node), b"pass"
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                if len(parts) > 1 and not isinstance(getattr(node, "ctx", None), ast.Store):
                    for number in range(len(parts)):
                        yield self._without(parts, number)
            case ast.Dict(keys=keys, values=values) if len(values) > 1:
                whole: list[ast.expr] = []
                for key, one in zip(keys, values, strict=True):
                    whole.append(one if key is None else key)
                for number in range(len(values)):
                    yield self._without(whole, number, ends=values)
            case ast.Call(func=func, keywords=keywords):
                name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
                if name in _TWIN:
                    end = self._at(func)[1]
                    yield end - len(name), end, _TWIN[name].encode()
                arguments: list[ast.AST] = sorted(
                    [*node.args, *keywords], key=lambda a: self._at(a)
                )
                for number, other in enumerate(arguments):
                    if not isinstance(other, ast.keyword) or _is_left_alone(other):
                        continue
                    if len(arguments) > 1:
                        yield self._without(arguments, number)
            case _:
                pass

    def _whole(self, node: ast.AST) -> bytes:
        return b"(" + self._text(node) + b")"

    def _between(self, before: ast.AST, after: ast.AST, new: str) -> tuple[int, int, bytes]:
        """The operator between two operands; closing and opening brackets stay."""
        start, end = self._at(before)[1], self._at(after)[0]
        text = self._source[start:end]
        left = len(text) - len(text.lstrip(b") \t\r\n"))
        right = len(text.rstrip(b"( \t\r\n"))
        return start + left, start + right, new.encode()

    def _without(
        self, parts: list[ast.AST] | list[ast.expr], number: int, ends: list[ast.expr] | None = None
    ) -> tuple[int, int, bytes]:
        """One of several parts, and the comma beside it."""
        last = parts if ends is None else ends
        if number + 1 < len(parts):
            start, end = self._begin(parts[number]), self._begin(parts[number + 1])
            if end > start:
                return start, end, b""
        return self._at(last[number - 1])[1], self._at(last[number])[1], b""

    def _begin(self, node: ast.AST) -> int:
        """Where a part begins, `**` of an unpacked mapping included."""
        start = self._at(node)[0]
        before = self._source[:start].rstrip()
        return len(before) - 2 if before.endswith(b"**") else start


def _is_nothing(node: ast.AST) -> bool:
    """None, or what counts as little where a condition is expected."""
    return isinstance(node, ast.Constant) and not node.value


def _other(value: object) -> list[bytes]:
    match value:
        case bool():
            return [str(not value).encode()]
        case int():
            return [str(value + 1).encode()]
        case float():
            return [repr(value * 2 + 1).encode()]
        case str() if value and " " not in value:
            return [repr(value + "_").encode()]
        case bytes() if value:
            return [repr(value + b"_").encode()]
        case _:
            return []


def _is_left_alone(node: ast.AST) -> bool:
    """
    Imports, docstrings, f-strings, types, what is logged, and the texts of errors.

    And `strict=True` of a `zip`, which says what holds anyway.
    """
    match node:
        case ast.Import() | ast.ImportFrom() | ast.JoinedStr():
            return True
        case ast.Expr(value=ast.Constant()) | ast.keyword(arg="strict"):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name in {"msg", "remedy", "__all__", "log"} or _is_type(name, node.value)
        case _:
            return False


def _is_type(name: str, value: ast.expr) -> bool:
    """Whether a name stands for a type, such as `Changed = Literal["no", "yes"]`."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "TypeVar"
    is_class = name[:1].isupper() and not name.isupper()
    return is_class and isinstance(value, ast.Subscript | ast.BinOp | ast.Name)
