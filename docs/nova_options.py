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

_PRIVILEGED: Final = """
## `[qmpsnap_privileged]`

The helper of a nova-compute that is not root: [Without root](../howto/openstack-compute.md#without-root). The options are oslo.privsep's own; those that matter:

| option | default | what it is |
|---|---|---|
| `helper_command` | `sudo nova-rootwrap CONFIG privsep-helper`, with the files of configuration of the service | What starts the helper. |
| `user`, `group` | root | Whom the helper runs as, with its three capabilities: where the server of a share takes root for nobody, who may read and write there. |
| `capabilities` | `CAP_SYS_PTRACE`, `CAP_DAC_READ_SEARCH`, `CAP_DAC_OVERRIDE` | What is left to it. |
"""


def page() -> str:
    """Return the text of the page."""
    from qmpsnap.openstack.nova.options import OPTIONS

    rows = [f"| `{one.name}` | `{one.default}` | {one.help} |\n" for one in OPTIONS]
    return _HEAD + "".join(rows) + _PRIVILEGED


if __name__ == "__main__":
    sys.path.insert(0, str(PAGE.parents[2]))
    PAGE.write_text(page(), encoding="utf-8")
