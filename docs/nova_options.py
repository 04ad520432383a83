"""
docs/reference/nova-options.md, from the options themselves.

Run where oslo.config is: `.tox/openstack/bin/python docs/nova_options.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).resolve().parent / "reference" / "nova-options.md"
_HEAD: Final = """\
<!-- Written by docs/nova_options.py; do not edit. -->
# Options of the compute side

The section `[qmpsnap]` of nova.conf: [Snapshots of attached volumes, by Nova](../howto/openstack-compute.md). A change needs a restart of nova-compute. `oslo-config-generator --namespace qmpsnap` prints a sample.

| option | default | what it is |
|---|---|---|
"""


def page() -> str:
    """Return the text of the page."""
    from qmpsnap.openstack.nova.options import OPTIONS

    rows = [f"| `{one.name}` | `{one.default}` | {one.help} |\n" for one in OPTIONS]
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    sys.path.insert(0, str(PAGE.parents[2]))
    PAGE.write_text(page(), encoding="utf-8")
