"""Every page that a command writes, opened in a headless browser: no error on the console, every picture there.

``make page-test``; Chromium comes from the system's packages.
"""

import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from de_core.cli import main

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# loaded last: what did not load, and how wide the page is against the window
PROBE = """<script>addEventListener("load", () => {
const all = [...document.images], bad = all.filter(i => !i.complete || !i.naturalWidth).map(i => i.alt);
document.body.dataset.probe = JSON.stringify([all.length, bad.length,
document.documentElement.scrollWidth - innerWidth]); })</script></body>"""


def opened(page):
    """(pictures, of them broken, pixels beyond a window of 1280 x 900, lines of the console) of a page."""
    if CHROMIUM is None:
        pytest.fail("no chromium on the path; install the system's package")
    copy = page.with_name("probe.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", "--virtual-time-budget=20000"]
    done = subprocess.run(
        [CHROMIUM, *flags, "--enable-logging=stderr", "--dump-dom", copy.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    copy.unlink()
    found = re.search(r'data-probe="\[(\d+),(\d+),(-?\d+)\]"', done.stdout)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return *(int(value) for value in found.groups()), console


def test_the_probe_finds_a_broken_picture_and_an_error(tmp_path):
    page = tmp_path / "bad.html"
    script = "<script>console.error('odd')</script>"
    page.write_text(f"<!doctype html><html><body><img src='nowhere.png' alt='x'>{script}</body></html>")
    pictures, broken, _, console = opened(page)
    assert (pictures, broken) == (1, 1)
    assert any("odd" in line for line in console)


def test_the_demo(tmp_path):
    assert main(["demo", "--out", str(tmp_path / "o"), "--minutes", "0.05"]) == 0
    pictures, broken, beyond, console = opened(tmp_path / "o" / "index.html")
    assert pictures >= 8
    assert (broken, console) == (0, [])
    assert beyond <= 0


def test_scenes(tmp_path):
    args = ["--minutes", "0.02", "--rows", "8", "--batch", "8"]
    assert main(["scenes", "--out", str(tmp_path / "o"), *args]) == 0
    pictures, broken, beyond, console = opened(tmp_path / "o" / "index.html")
    assert pictures >= 7 * 8
    assert (broken, console) == (0, [])
    assert beyond <= 0


def test_the_claims(tmp_path):
    common = ["--out", str(tmp_path / "o"), "--seed", "0"]
    trained = ["--steps", "1", "--seeds", "1", "--rows", "2", "--batch", "2"]
    assert main(["claims", "stages", *common, *trained, "--steps", "3"]) == 0
    model = next((tmp_path / "o").rglob("model"))
    asked = ["--captions", "8", "--draws", "2", "--weights", "2", "--sigmas", "0.5", "--intervals", "0:1"]
    assert main(["claims", "guidance", *common, "--model", str(model), *asked]) == 0
    for name, least in (("stages", 2 * 16 + 1), ("guidance", 3 * 8 + 1)):
        pictures, broken, beyond, console = opened(tmp_path / "o" / f"{name}.html")
        assert pictures == least
        assert (broken, console) == (0, [])
        assert beyond <= 0


def test_the_report_on_a_table(tmp_path):
    draw = np.random.default_rng(0)
    for name in ("train", "test", "synthetic"):
        x = draw.normal(size=200)
        table = pd.DataFrame({"x": x, "y": x + draw.normal(size=200), "job": draw.choice(["clerk", "baker"], 200)})
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    files = [f"--{name}={tmp_path / name}.csv" for name in ("train", "test", "synthetic")]
    assert main(["evaluate", *files, "--target", "job", "--out", str(tmp_path / "o")]) == 0
    (page,) = (tmp_path / "o").glob("*.html")
    pictures, broken, beyond, console = opened(page)
    assert pictures >= 3
    assert (broken, console) == (0, [])
    assert beyond <= 0
