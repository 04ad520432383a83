"""`--plan`: what a create or delete would do, as a table, JSON or YAML."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Group, RenderableType

from qmpsnap.cli.output import printable, show, table
from qmpsnap.cli.views import size
from qmpsnap.operations.forecast import Forecast


def show_plans(operation: str, forecasts: Sequence[Forecast], output: str) -> None:
    """Print `qmpsnap.plan/1`."""
    document: dict[str, object] = {
        "schema": "qmpsnap.plan/1",
        "operation": operation,
        "disks": [
            {
                "disk": one.disk,
                "kind": one.kind,
                "why": one.why,
                "steps": [
                    {"by": step.by, "what": step.what, "arguments": dict(step.arguments)}
                    for step in one.steps
                ],
                "moves": one.moved.moved if one.moved else None,
                "grows": one.moved.needed if one.moved else None,
                "before": [
                    {
                        "file": layer.file,
                        "path": layer.path,
                        "node": layer.node,
                        "format": layer.format,
                    }
                    for layer in one.before
                ],
                "after": [{"file": file, "format": format_} for file, format_ in one.after],
            }
            for one in forecasts
        ],
    }
    show(document, output, lambda: Group(*(_one(operation, one) for one in forecasts)))


def _one(operation: str, forecast: Forecast) -> RenderableType:
    rows = [
        (number, step.by, step.what, json.dumps(dict(step.arguments), ensure_ascii=False))
        for number, step in enumerate(forecast.steps, start=1)
    ]
    chain = " <- ".join(f"{file} ({format_ or '?'})" for file, format_ in reversed(forecast.after))
    moved = forecast.moved
    moves = "how much it moves is not known"
    if moved is not None and moved.moved:
        grows = f"the written file grows by {size(moved.needed)} at most"
        moves = f"moves {size(moved.moved)} at most, {grows}"
    elif moved is not None:
        moves = "moves no data"
    why = f" ({forecast.why})" if forecast.why else ""
    title = f"{operation} on {forecast.disk}: {forecast.kind}{why}"
    steps = table(("", "BY", "STEP", "ARGUMENTS"), rows, title=title)
    return Group(steps, printable(f"{moves}; afterwards: {chain}"))
