"""
Findings as SARIF 2.1.0, which code hosts and security dashboards read.

A finding is a result, a rule a `reportingDescriptor`; the file is the physical location, guest,
disk and node the logical one. Fingerprints leave the node out: QEMU names many anew at each
start.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

from qmpsnap.findings.finding import RULES, Finding, Rule

VERSION: Final = "2.1.0"
SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
FINGERPRINT: Final = "qmpsnap/1"

_INDEX: Final = {rule.id: index for index, rule in enumerate(RULES)}


def sarif(
    findings: Iterable[Finding],
    *,
    version: str,
    complete: bool,
    not_audited: Sequence[str] = (),
) -> dict[str, object]:
    """
    Build a SARIF log with one run.

    Args:
        findings: What was found.
        version: Of this tool.
        complete: Whether everything that was asked for could be read.
        not_audited: Remarks on what was left out, in words.
    """
    return {
        "$schema": SCHEMA,
        "version": VERSION,
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "qmpsnap",
                        "version": version,
                        "rules": [_rule(rule) for rule in RULES],
                    }
                },
                "invocations": [
                    {
                        "executionSuccessful": complete,
                        "toolExecutionNotifications": [
                            {"level": "note", "message": {"text": _text(one)}}
                            for one in not_audited
                        ],
                    }
                ],
                "results": [_result(one) for one in findings],
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.help},
        "help": {"text": rule.remedy},
        "defaultConfiguration": {"level": rule.severity.value},
    }


def _result(finding: Finding) -> dict[str, object]:
    properties = {
        "guest": finding.guest,
        "disk": finding.disk,
        "node": finding.node,
        "remedy": finding.remedy,
    }
    return {
        "ruleId": finding.id,
        "ruleIndex": _INDEX[finding.id],
        "level": finding.severity.value,
        "message": {"text": _text(f"{finding.message}. {finding.remedy}")},
        "locations": [_location(finding)],
        "partialFingerprints": {FINGERPRINT: _fingerprint(finding)},
        "properties": {name: _text(text) for name, text in properties.items() if text is not None},
    }


def _location(finding: Finding) -> dict[str, object]:
    names = [finding.guest or "guest", finding.disk, finding.node]
    location: dict[str, object] = {
        "logicalLocations": [
            {
                "fullyQualifiedName": _text("/".join(name for name in names if name)),
                "kind": "resource",
            }
        ]
    }
    if finding.file is not None and finding.file.startswith("/"):
        uri = "file://" + quote(_bytes(finding.file))
        location["physicalLocation"] = {"artifactLocation": {"uri": uri}}
    return location


def _fingerprint(finding: Finding) -> str:
    parts = (finding.id, finding.guest, finding.disk, finding.file)
    return hashlib.sha256(_bytes("\0".join(part or "" for part in parts))).hexdigest()


def _bytes(name: str) -> bytes:
    """The bytes of a file name."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no name that a file here can have
        return name.encode("utf-8", "backslashreplace")


def _text(text: str) -> str:
    """Bytes that are no UTF-8 would become lone surrogates, which are no text in JSON."""
    return text.encode("utf-8", "backslashreplace").decode()
