"""
`audit -o html` in a real browser, on a phone and on a screen: `tox -e nightly-browser`.

No message in the console, no request, nothing beyond the edge, and nobody has to guess at a text.
The pictures are left in `$QMPSNAP_PICTURES`, to be looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from qmpsnap.formats.verdict import Verdict
from tests.browser.chromium import PROGRAM, Browser, browser
from tests.unit import samples
from tests.unit.test_page import FOUND, made

WIDTHS: Final = (390, 1440)
LONG: Final = "volume-5f2c9a3e-8f0a-4a57-9d6b-3c1f0a7b9e11.snapshot-of-monday-" + "x" * 120
_BEYOND: Final = """
[...document.querySelectorAll('body *')]
    .filter(one => one.getBoundingClientRect().right > innerWidth + 0.5 ||
                   one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display != 'inline')
    .map(one => one.outerHTML.slice(0, 200))
"""
_CONTRAST: Final = """
(() => {
  const light = text => {
    const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map(one => {
      const part = one / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = one => {
    for (; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (!/, 0\\)$|transparent/.test(color)) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let worst = 21;
  while (walk.nextNode()) {
    if (!walk.currentNode.data.trim()) continue;
    const one = walk.currentNode.parentElement;
    const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
    worst = Math.min(worst, (a + 0.05) / (b + 0.05));
  }
  return worst;
})()
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp(PROGRAM)) as found:
        yield found


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Twelve disks, one with forty layers, long names, every colour, and a finding."""
    layers = [samples.layer(f"volume-1.s{number}") for number in range(40)]
    layers[3] = replace(layers[3], verdict=Verdict.CONFLICT)
    layers[9] = replace(layers[9], verdict=Verdict.UNKNOWN, format=None)
    layers[20] = replace(layers[20], verdict=Verdict.STATED, flags=("detect-zeroes",))
    deep = samples.disk(layers=samples.linked([*layers, samples.layer(LONG, "raw")]))
    others = [replace(samples.disk(3), disk=f"vd{letter}") for letter in "bcdefghijkl"]
    long = replace(FOUND, file=f"/share/{LONG}", message=f"{LONG} is also active in vdb")
    file = tmp_path / "audit.html"
    file.write_text(made(deep, *others, found=(FOUND, long)))
    return file


@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_readable(opened: Browser, page: Path, width: int) -> None:
    opened.shows(page, width)
    assert opened.tells("innerWidth") == width
    assert opened.tells(_BEYOND) == []
    assert opened.tells("document.documentElement.scrollWidth") <= width
    assert opened.tells(_CONTRAST) >= 4.5
    assert opened.tells("document.querySelectorAll('.disk').length") == 12
    assert opened.tells("[...document.querySelectorAll('.layer')].every(one => one.offsetHeight)")
    told = [one["method"] for one in opened.events]
    assert not [one for one in told if one.startswith(("Log.", "Runtime.console"))], opened.events
    assert told.count("Network.requestWillBeSent") == 1, "it asks for something else"
    if pictures := os.environ.get("QMPSNAP_PICTURES"):
        opened.draws(Path(pictures, f"audit-{width}.png"))


def test_it_prints(opened: Browser, page: Path) -> None:
    opened.shows(page, 800)
    assert len(opened.call("Page.printToPDF", printBackground=True)["data"]) > 10_000


def test_a_hostile_name_runs_nothing(opened: Browser, tmp_path: Path) -> None:
    hostile = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
    file = tmp_path / "hostile.html"
    file.write_text(made(samples.disk(layers=[samples.layer(hostile)])))
    opened.shows(file, 390)
    assert opened.tells("document.title").startswith("qmpsnap audit")
    assert opened.tells("document.images.length") == 0
    assert opened.tells("document.scripts.length") == 0
