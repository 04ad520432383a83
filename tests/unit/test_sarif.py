"""
Findings as SARIF 2.1.0.

The schema here is the part of the official one that this tool uses, written down anew and
stricter: nothing may be there that it does not name. The whole output was checked once against
the official schema.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from qmpsnap.findings import finding as rules
from qmpsnap.findings.finding import RULES, Finding
from qmpsnap.findings.sarif import FINGERPRINT, sarif


def closed(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    """An object with these keys and no others; all of them required by default."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def several(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


TEXT = {"type": "string", "minLength": 1}
MESSAGE = closed(text=TEXT)
LEVEL = {"enum": ["none", "note", "warning", "error"]}
RULE = closed(
    id=TEXT,
    shortDescription=MESSAGE,
    fullDescription=MESSAGE,
    help=MESSAGE,
    defaultConfiguration=closed(level=LEVEL),
)
LOCATION = closed(
    ["logicalLocations"],
    logicalLocations=several(closed(fullyQualifiedName=TEXT, kind=TEXT)),
    physicalLocation=closed(
        artifactLocation=closed(uri={"type": "string", "pattern": r"^file:///[!-~]*$"})
    ),
)
RESULT = closed(
    ruleId=TEXT,
    ruleIndex={"type": "integer", "minimum": 0},
    level=LEVEL,
    message=MESSAGE,
    locations=several(LOCATION),
    partialFingerprints={"type": "object", "additionalProperties": TEXT},
    properties={"type": "object"},
)
INVOCATION = closed(
    executionSuccessful={"type": "boolean"},
    toolExecutionNotifications=several(closed(level=LEVEL, message=MESSAGE)),
)
RUN = closed(
    tool=closed(driver=closed(name=TEXT, version=TEXT, rules=several(RULE))),
    invocations=several(INVOCATION),
    results=several(RESULT),
)
SCHEMA = closed(version={"const": "2.1.0"}, runs=several(RUN))
SCHEMA["properties"]["$schema"] = TEXT
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def run(*found: Finding, complete: bool = True, not_audited: tuple[str, ...] = ()) -> Any:
    """The one run of a log, as a reader of its text gets it."""
    log = sarif(found, version="1.2.3", complete=complete, not_audited=not_audited)
    text = json.dumps(log)
    json.dumps(json.loads(text), ensure_ascii=False).encode()  # no lone surrogates
    VALIDATOR.validate(json.loads(text))
    return json.loads(text)["runs"][0]


def one(file: str | None = "/share/volume-1", node: str | None = "#block1") -> Finding:
    return Finding(
        rule=rules.DATA_FILE,
        guest="web1",
        disk="vda",
        file=file,
        node=node,
        message="its data lies in x",
        remedy="Look.",
    )


def test_nothing_found() -> None:
    log = run()
    assert log["results"] == []
    assert [rule["id"] for rule in log["tool"]["driver"]["rules"]] == [rule.id for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_result_of_each_rule(rule: rules.Rule) -> None:
    found = Finding(rule=rule, guest=None, message="m", remedy="r")
    log = run(found)
    (result,) = log["results"]
    assert log["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == rule.id
    assert result["level"] == rule.severity


def test_where_it_is() -> None:
    (result,) = run(one())["results"]
    (location,) = result["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "file:///share/volume-1"
    assert location["logicalLocations"][0]["fullyQualifiedName"] == "web1/vda/#block1"
    assert result["message"]["text"] == "its data lies in x. Look."


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("/a b/ä?#%", "file:///a%20b/%C3%A4%3F%23%25"),
        ("/a\udcff\x1b", "file:///a%FF%1B"),
        ("/\ud800", "file:///%5Cud800"),
    ],
)
def test_hostile_names(file: str, uri: str) -> None:
    (result,) = run(one(file))["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


@pytest.mark.parametrize("file", [None, "nbd://host/x", "volume-1"])
def test_what_is_no_file_of_this_host_has_no_uri(file: str | None) -> None:
    (result,) = run(one(file))["results"]
    assert "physicalLocation" not in result["locations"][0]


def test_names_that_are_not_utf_8_in_texts() -> None:
    found = Finding(
        rule=rules.DATA_FILE, guest="a\udcff", disk="\ud800", message="m\udc80", remedy="r"
    )
    (result,) = run(found)["results"]
    assert result["message"]["text"] == "m\\udc80. r"
    assert result["properties"]["guest"] == "a\\udcff"


def test_fingerprints_outlive_a_restart() -> None:
    results = run(one(), one(node="#block99"), one("/share/volume-2"))["results"]
    first, again, other = (result["partialFingerprints"][FINGERPRINT] for result in results)
    assert first == again != other


def test_what_was_not_read() -> None:
    log = run(complete=False, not_audited=("web2 was not audited: not running",))
    (invocation,) = log["invocations"]
    assert invocation["executionSuccessful"] is False
    assert len(invocation["toolExecutionNotifications"]) == 1
