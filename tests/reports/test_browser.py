"""Reports in a real browser: nothing is in the way of anything, at any width, by day and by night.

Chromium is run once a test, headless and on files: a page with a frame for each report, whose script says what it
sees. What a picture's data has wrong the browser says on its console, which it prints.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.reports.html import render_html
from tests.reports.reports import app_failed, document, fifty_scenarios
from tests.transcripts.snapshots import changed, green, grown

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")

LIMIT = 60.0
PHONE, TABLET, DESK = 360, 800, 1200
# Says what it sees when the page is there: closed, then with everything unfolded. Characters of less than 8.5 pixels
# nobody reads.
SCRIPT = """<script>
addEventListener("load", () => {
  const wide = () => document.documentElement.scrollWidth - innerWidth;
  const box = (it) => it.getBoundingClientRect();
  const size = (it) => parseFloat(getComputedStyle(it).fontSize) * it.getScreenCTM().a;
  const leaves = ({at, outer}) => at.left < outer.left - 1 || at.right > outer.right + 1
    || at.top < outer.top - 1 || at.bottom > outer.bottom + 1;
  const meet = (a, b) => a.outer === b.outer && a.at.left < b.at.right - 1 && b.at.left < a.at.right - 1
    && a.at.top < b.at.bottom - 3 && b.at.top < a.at.bottom - 3;
  const folds = [...document.querySelectorAll("details")], closed = wide();
  folds.filter((it) => !it.open).forEach((it) => it.querySelector("summary").click());
  const pictures = [...document.querySelectorAll("svg[role=img]")];
  const texts = pictures.flatMap((picture) => {
    const outer = box(picture);
    return [...picture.querySelectorAll("text")].map(
      (it) => ({outer, text: it.textContent, at: box(it), size: size(it)}));
  }).filter((it) => it.text.trim());
  parent.postMessage({
    page: document.title,
    dark: getComputedStyle(document.body).backgroundColor,
    wide: [closed, wide()],
    stuck: folds.filter((it) => !it.open || box(it.lastElementChild).height < 1).map((it) => it.innerText.slice(0, 60)),
    pictures: pictures.length,
    outside: pictures.map(box).filter((it) => it.width < 50 || it.left < 0 || it.right > innerWidth).length,
    cut: texts.filter(leaves).map((it) => it.text),
    meet: texts.flatMap((a, at) => texts.slice(at + 1, at + 60).filter((b) => meet(a, b)).map((b) => [a.text, b.text])),
    small: texts.filter((it) => it.size < 8.5).map((it) => it.text),
  }, "*");
});
</script>"""
FRAMES = """<!DOCTYPE html><title>frames</title><pre id="seen"></pre><script>
const seen = [];
addEventListener("message", (it) => {
  seen.push(it.data);
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
</script>"""


@dataclass(frozen=True)
class Shown:
    """A page, and how it is shown: its width (pixels), and whether in the dark."""

    source: str
    width: int
    dark: bool = False


def look_at(folder: Path, pages: dict[str, Shown]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What each page says that it sees, and the lines of the browser's console."""
    frames = FRAMES
    for name, page in pages.items():
        titled = re.sub("<title>.*?</title>", f"<title>{name}</title>", page.source)
        (folder / f"{name}.html").write_text(titled.replace("</body>", f"{SCRIPT}</body>"))
        style = f"border: 0; height: 900px; width: {page.width}px; color-scheme: {'dark' if page.dark else 'light'}"
        frames += f'<iframe src="{name}.html" style="{style}"></iframe>'
    (folder / "frames.html").write_text(frames)
    assert CHROMIUM is not None
    argv = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--enable-logging=stderr",
    ]
    argv += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run(
        [*argv, (folder / "frames.html").as_uri()], capture_output=True, text=True, timeout=LIMIT, check=True
    )
    said = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert said, done.stderr
    listed = json.loads(html.unescape(said[1]) or "[]")
    return {it["page"]: it for it in listed}, re.findall(r"CONSOLE.*", done.stderr)


def faults(seen: dict[str, Any], page: Shown) -> set[str]:
    """What is wrong with a page, by what it saw."""
    red, green, blue = map(int, re.findall(r"\d+", seen["dark"])[:3])
    checks = {
        "wide": any(wide > 0 for wide in seen["wide"]),
        "stuck": seen["stuck"],
        "outside": seen["outside"],
        "cut": seen["cut"],
        "meet": seen["meet"],
        "small": seen["small"],
        "dark": (red + green + blue < 3 * 128) != page.dark,
    }
    return {f"{name}: {seen.get(name)}" for name, wrong in checks.items() if wrong}


def test_reports_are_legible_at_every_width(tmp_path: Path) -> None:
    three = render_html(document(green()), {1: green()})
    wrong = render_html(document(app_failed()), {1: app_failed()})
    # one machine is all that a machine can be
    many = changed(grown(app_failed(), 40), {"outside.names.genkisugimoto.com": green().intended.entry_point})
    forty = render_html(document(many), {1: many})
    fifty = render_html(*fifty_scenarios(tmp_path))
    pages = {
        "three on a phone": Shown(three, PHONE),
        "three on a desk in the dark": Shown(three, DESK, dark=True),
        "wrong on a phone in the dark": Shown(wrong, PHONE, dark=True),
        "wrong on a tablet": Shown(wrong, TABLET),
        "forty on a phone": Shown(forty, PHONE),
        "forty on a desk": Shown(forty, DESK),
        "fifty on a phone": Shown(fifty, PHONE),
    }
    seen, console = look_at(tmp_path, pages)

    assert console == [] and set(seen) == set(pages)
    assert {name: found for name, page in pages.items() if (found := faults(seen[name], page))} == {}
    assert {name: it["pictures"] for name, it in seen.items() if "phone" in name} == {
        "three on a phone": 5, "wrong on a phone in the dark": 5, "forty on a phone": 42, "fifty on a phone": 184,
    }  # fmt: skip


def test_what_would_be_in_the_way_is_seen(tmp_path: Path) -> None:
    picture = '<svg role="img" viewBox="0 0 100 50" width="{}">{}</svg>'
    broken = {
        "wide": "<pre style='width: 500px'>x</pre>",
        "stuck": "<details style='display: none'><summary>x</summary><p>y</p></details>",
        "outside": picture.format(100, "").replace("<svg", "<svg style='margin-left: -40px'"),
        "cut": picture.format(100, '<text x="80" y="20">beyond the edge</text>'),
        "meet": picture.format(100, '<text x="2" y="20">one</text><text x="9" y="21">two</text>'),
        "small": picture.format(60, '<text x="2" y="20" font-size="9">one</text>'),
        "dark": "<style>body { background: #111 }</style>",
        "console": picture.format(100, '<path d="M0 0Lx"/>'),
        "fine": picture.format(100, '<text x="2" y="20">one</text>'),
    }
    plain = "<!DOCTYPE html><title>t</title><style>body {{ background: #fff; margin: 0 }}</style><body>{}</body>"
    pages = {name: Shown(plain.format(body), PHONE) for name, body in broken.items()}
    seen, console = look_at(tmp_path, pages)

    found = {name: {it.partition(":")[0] for it in faults(seen[name], page)} for name, page in pages.items()}
    assert found == {name: {name} - {"fine", "console"} for name in broken}
    assert len(console) == 1 and "attribute d" in console[0]
