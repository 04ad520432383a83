"""Cinder's own ledger, as `--ledger` names it."""

from __future__ import annotations

from typing import Any

from qmpsnap.ledger.named import CINDERS


def name_of_cinders(conf: Any) -> str:
    """Name the ledger in Cinder's database; with the configuration, where others would not find it."""
    from oslo_config import cfg

    files = list(getattr(conf, "config_file", None) or ())
    return CINDERS if files == cfg.find_config_files("cinder") else CINDERS + ",".join(files)
