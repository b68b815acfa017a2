"""The review page in a real browser, by keyboard and mouse."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import PROGRAMS, Browser

from leukokit.batch.decisions import verdicts_of

KEYS = {" ": 32, "ArrowRight": 39, "x": 88, "u": 85, "z": 90, **{str(n): 48 + n for n in range(1, 10)}}
SHIFT, CONTROL = 8, 2


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium-headless-shell")
    browser = Browser(program, tmp_path_factory.mktemp("chromium") / "profile")
    browser.ask(
        "Emulation.setDeviceMetricsOverride", width=1400, height=900, deviceScaleFactor=1, mobile=False
    )
    yield browser
    browser.close()


@pytest.fixture
def address(results: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "leukokit", "review", str(results), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Review on http://127.0.0.1:")
        yield line.split()[-1]
        process.kill()


def press(browser: Browser, key: str, modifiers: int = 0) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        browser.ask(
            "Input.dispatchKeyEvent",
            type=kind,
            key=key,
            windowsVirtualKeyCode=KEYS[key],
            modifiers=modifiers,
        )


def click(browser: Browser, element: str) -> None:
    """Click in the middle of an element, as a mouse does; focus follows."""
    x, y = browser.evaluate(
        f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({element}.getBoundingClientRect())"
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def wait_for(browser: Browser, expression: str) -> None:
    deadline = time.monotonic() + 20
    while not browser.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)


def reviewed(results: Path) -> list[str]:
    return sorted(verdict.label for verdict in verdicts_of(results).values())


def test_keys_and_mouse_do_what_the_page_says(results: Path, address: str, chromium: Browser) -> None:
    chromium.events.clear()
    chromium.open(address)
    wait_for(chromium, "document.querySelectorAll('.cell img').length > 5")
    wait_for(chromium, "[...document.querySelectorAll('.cell img')].every((i) => i.naturalWidth === 128)")
    # Without a name nothing is stored.
    press(chromium, "3")
    assert reviewed(results) == []
    chromium.evaluate("document.getElementById('reviewer').value = 'Ann'")
    click(chromium, "document.querySelector('.cell')")
    press(chromium, "3")
    wait_for(chromium, "document.querySelector('#progress').textContent.startsWith('1 of')")
    assert reviewed(results) == ["monocyte"]
    # The next cell is current now; two more are selected, and get one label at once.
    press(chromium, "ArrowRight", SHIFT)
    press(chromium, "x")
    wait_for(chromium, "document.querySelector('#progress').textContent.startsWith('3 of')")
    assert reviewed(results) == ["monocyte", "not a leukocyte", "not a leukocyte"]
    press(chromium, "z", CONTROL)
    wait_for(chromium, "document.querySelector('#progress').textContent.startsWith('1 of')")
    # A filter shows one label alone; space confirms it.
    buttons = "[...document.querySelectorAll('#labels button')]"
    click(chromium, f"{buttons}.find((b) => b.textContent.includes('neutrophil'))")
    click(chromium, "document.querySelector('.cell')")
    press(chromium, " ")
    wait_for(chromium, "document.querySelector('#progress').textContent.startsWith('2 of')")
    assert reviewed(results) == ["monocyte", "neutrophil"]
    # A selection is dropped on a label.
    chromium.evaluate(
        "const target = [...document.querySelectorAll('#labels button')]"
        ".find((b) => b.textContent.includes('basophil'));"
        "document.querySelector('.cell').dispatchEvent(new DragEvent('dragstart'));"
        "target.dispatchEvent(new DragEvent('drop', {cancelable: true}))"
    )
    rows = "[...document.querySelectorAll('#differential tr')]"
    wait_for(chromium, f"{rows}.some((row) => /^basophil[1-9]/.test(row.textContent))")
    assert "basophil" in reviewed(results)
    urls = [event["request"]["url"] for event in chromium.named("Network.requestWillBeSent")]
    assert all(url.startswith(("http://127.0.0.1:", "data:")) for url in urls)
    for trouble in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
        assert not chromium.named(trouble)


def test_another_browsers_decision_appears(results: Path, address: str, chromium: Browser) -> None:
    chromium.open(address)
    wait_for(chromium, "document.querySelectorAll('.cell').length > 5")
    chromium.evaluate(
        "fetch('api/decide', {method: 'POST', headers: {'X-Leukokit': '1'},"
        " body: JSON.stringify({cells: [0], label: 'blast', reviewer: 'Ben'})})"
    )
    wait_for(
        chromium,
        "[...document.querySelectorAll('.cell.reviewed span')].some((s) => s.textContent === 'blast')",
    )
    assert reviewed(results) == ["blast"]
