"""The report in a real browser: pointing, tapping and keys show a λ's samples; widths; the console.

Chromium is spoken to through its DevTools pipe (descriptors 3 and 4, JSON between zero bytes), so
that pointer and keys are its own and not made up by a script in the page. Skipped where no Chromium
is installed (Debian: apt-get install --no-install-recommends chromium).
"""

import fcntl
import json
import os
import select
import shutil
import signal
import time

import numpy as np
import pytest

from prpr import plotting, record, report
from prpr.evaluate import page

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium: apt-get install --no-install-recommends chromium"
)

PATIENCE = 60.0  # seconds for any one answer


class Browser:
    """A headless Chromium with one tab."""

    def __init__(self, folder):
        to_read, self._write = (self._high(fd) for fd in os.pipe())
        self._read, to_write = (self._high(fd) for fd in os.pipe())
        arguments = [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
            "about:blank",
        ]
        self._pid = os.posix_spawn(
            arguments[0],
            arguments,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, to_read, 3),
                (os.POSIX_SPAWN_DUP2, to_write, 4),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._count, self.events = b"", 0, []
        self._session = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for part in ("Page", "Runtime", "Log"):
            self.ask(f"{part}.enable")

    @staticmethod
    def _high(fd):
        """The same pipe at a descriptor that 3 and 4 cannot collide with."""
        new = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20)
        os.close(fd)
        return new

    def ask(self, method, **params):
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == self._count:
                assert "error" not in found, (method, found["error"])
                return found["result"]
            self.events.append(found)

    def _message(self):
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], max(0.0, end - time.monotonic()))[0]
            part = os.read(self._read, 1 << 20)
            assert part, "chromium ended"
            self._buffer += part
        one, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(one)

    def open(self, path, width, height=900, scheme="light"):
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", features=features)
        self.ask("Page.navigate", url=path.as_uri())
        self.until("document.readyState === 'complete' && document.images.length > 0")

    def js(self, expression):
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression):
        end = time.monotonic() + PATIENCE
        while not self.js(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.02)

    def point(self, selector):
        """Moves the pointer onto an element."""
        x, y = self._middle(selector)
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def tap(self, selector):
        x, y = self._middle(selector)
        touch = [{"x": x, "y": y}]
        self.ask("Emulation.setTouchEmulationEnabled", enabled=True)
        self.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=touch)
        self.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=KEYS[key],
            )

    def _middle(self, selector):
        return self.js(
            f"(() => {{ const e = document.querySelector('{selector}');"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )

    def complaints(self):
        """What was said to the console, and exceptions."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event for event in self.events if event.get("method") in kinds]

    def close(self):
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._read)
        os.close(self._write)


KEYS = {"Tab": 9, "ArrowRight": 39, "ArrowLeft": 37}

SHOWN = """[...document.querySelectorAll('.panel')]
    .filter(p => getComputedStyle(p).display !== 'none')
    .map(p => p.querySelector('h3').textContent + '|' + p.querySelector('img').src.length
         + '|' + p.querySelector('img').src.slice(-40))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("chromium"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """A page with every section that made-up records can have: images of three classes."""
    folder = tmp_path_factory.mktemp("report") / "run"
    (folder / "samples").mkdir(parents=True)
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    middle = rng.integers(40, 215, (3, 8, 8, 1))
    rows = []
    spec = {"real": (None, 0.9, 0.9), "base": (None, 0.6, 0.8), "control": (None, 0.8, 0.6)}
    spec |= {
        f"lam_{lam:g}": (lam, p, r)
        for lam, p, r in ((0.2, 0.7, 0.8), (1.0, 0.8, 0.7), (20.0, 0.95, 0.3))
    }
    for name, (lam, p, r) in spec.items():
        seed = None if name == "real" else 0
        metrics = {
            key: {"value": v, "low": v - 0.03, "high": v + 0.03}
            for key, v in (("precision", p), ("recall", r), ("density", 1.1), ("coverage", 0.8))
        }
        rows.append({"name": name, "lam": lam, "seed": seed, "metrics": metrics})
        images = middle[labels] + rng.normal(0, 20 if lam != 20.0 else 5, (60, 8, 8, 1))
        run = name if seed is None else f"{name}-seed0"
        images = np.clip(images, 0, 255).astype(np.uint8)
        np.savez(folder / "samples" / f"{run}.npz", images=images, labels=labels)
    results = {"rows": rows, "encoder": "pixels", "k": 3, "k_coverage": 5, "n_real": 60}
    results |= {"n_fake": 60, "split": "test", "level": 0.95, "seconds": 12.0}
    record.write_json(folder / "summary.json", results)
    command = ["finetune_biggan.py", "--config=configs/a_configuration_with_a_long_name.py"]
    record.write_json(folder / "environment.json", {"command": 3 * command})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plotting.STYLE, "savefig.dpi", 100)
        return page.make(folder, "precision >= 0.75", "recall >= .3")


def shown(browser):
    found = browser.js(SHOWN)
    assert len(found) == 1
    return found[0]


def test_pointing_at_a_lam_shows_its_samples_and_numbers(browser, decided):
    browser.open(decided, 1200)
    first = shown(browser)
    browser.point(".hit.at-5")
    pointed = shown(browser)
    assert pointed.startswith("λ = 20|")
    browser.point("h1")
    assert shown(browser) == first
    assert not first.startswith("λ = 20|")
    assert pointed.split("|")[1:] != first.split("|")[1:]
    # The ring around a mark says which one it is.
    ring = "getComputedStyle(document.querySelector('.mark-{} .ring')).opacity"
    picked = browser.js("document.querySelector('input:checked').id").removeprefix("pick-")
    assert browser.js(ring.format(picked)) == "1"
    assert browser.js(ring.format(5)) == "0"


def test_the_arrow_keys_keep_a_lam(browser, decided):
    browser.open(decided, 1200)
    browser.point("h1")
    first = shown(browser)
    browser.js("document.querySelector('input:checked').focus({focusVisible: true})")
    browser.press("ArrowRight")
    second = shown(browser)
    assert second != first
    chip = "document.querySelector('.chip[for=' + document.activeElement.id + ']')"
    assert browser.js(f"getComputedStyle({chip}).outlineStyle") == "solid"
    browser.press("ArrowLeft")
    assert shown(browser) == first


def test_a_tap_keeps_a_lam(browser, decided):
    browser.open(decided, 360)
    browser.tap(".hit.at-3")
    browser.until("document.querySelector('#pick-3').checked")
    assert shown(browser).startswith("λ = 0.2|")
    browser.tap("label.chip-0")
    browser.until("document.querySelector('#pick-0').checked")
    assert shown(browser).startswith("real data|")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1200])
def test_the_page_fits_and_can_be_read(browser, decided, width, scheme):
    browser.open(decided, width, scheme=scheme)
    # Not innerWidth: a phone widens that to what does not fit.
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.js("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    # Wide tables scroll in boxes that a keyboard reaches.
    assert browser.js(
        "[...document.querySelectorAll('table')].every(t => t.closest('.scroll').tabIndex === 0)"
    )
    assert browser.js("[...document.querySelectorAll('.chip')].every(c => c.offsetHeight >= 40)")
    low = browser.js(CONTRAST)
    assert low == []


# Text whose contrast to what lies behind it is below 4.5 (WCAG AA).
CONTRAST = """(() => {
  const parse = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => c.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
    return [255, 255, 255]; };
  const out = [];
  for (const e of document.querySelectorAll('main *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('svg') || !e.getClientRects().length) continue;
    const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) out.push([e.tagName, e.textContent.slice(0, 40), ratio]);
  }
  return out; })()"""


def test_everything_shows_in_print(browser, decided):
    browser.open(decided, 800)
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert len(browser.js(SHOWN)) == 6
    browser.ask("Emulation.setEmulatedMedia", media="")


def test_the_console_stays_silent(browser, decided):
    browser.open(decided, 1200)
    browser.point(".hit.at-4")
    assert browser.complaints() == []
    browser.js("console.error('heard')")
    browser.until("true")
    assert len(browser.complaints()) == 1  # it would have been heard


def test_a_page_without_a_goal_works_alike(browser, decided):
    plain = report.make(decided.parent, out=decided.parent / "plain.html")
    browser.open(plain, 360)
    assert browser.js("document.documentElement.scrollWidth") <= 360
    assert shown(browser).startswith("λ = 20|")
