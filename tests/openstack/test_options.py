"""The options are Nova's to read, and their page is theirs."""

from __future__ import annotations

import subprocess
import sys

from docs.nova_options import PAGE, page


def test_the_page_of_options_is_true() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "run docs/nova_options.py"


def test_the_generator_of_oslo_knows_them() -> None:
    command = [sys.executable, "-m", "oslo_config.generator", "--namespace", "qmpsnap"]
    sample = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "[qmpsnap]" in sample
    assert "#allow_passthrough = true" in sample
    assert "[qmpsnap_privileged]" in sample
    assert "#helper_command = " in sample


def test_nova_finds_the_driver_below_its_own_name() -> None:
    code = "import nova.virt.qmpsnap as q, qmpsnap.openstack.nova as ours; assert q is ours"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_driver_refuses_eventlet() -> None:
    code = (
        "import os; os.environ['OS_NOVA_DISABLE_EVENTLET_PATCHING'] = 'false'\n"
        "from nova import monkey_patch; monkey_patch.patch()\n"
        "from qmpsnap.openstack.nova import LibvirtDriver\n"
        "try: LibvirtDriver(None)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-Wignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("NeedsThreads qmpsnap.LibvirtDriver runs on threads only")
