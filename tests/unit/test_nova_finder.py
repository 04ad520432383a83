"""The line in site-packages by which Nova finds the driver."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import qmpsnap

LINE = Path(qmpsnap.__file__).parent / "openstack" / "qmpsnap-nova.pth"


def test_it_loads_nothing_and_finds_one_module(tmp_path: Path) -> None:
    (tmp_path / LINE.name).write_text(LINE.read_text())
    code = """
import site, sys, types
site.addsitedir(sys.argv[1])
print(*(name for name in sys.modules if name.startswith("qmpsnap")))
for name in ("nova", "nova.virt"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
import nova.virt.qmpsnap as found
import qmpsnap.openstack.nova as real
try:
    import nova.virt.another
except ModuleNotFoundError as error:
    print(found is real, error.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["", "True nova.virt.another"]
