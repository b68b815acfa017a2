"""A real browser, in which the tests of the report open it."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")


class Browser:
    """A headless Chromium with one page, spoken to over the pipes of its DevTools protocol."""

    def __init__(self, program: str, profile: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._number, self._rest = 0, b""
        ours = [os.pipe(), os.pipe()]
        # The browser reads from 3 and writes to 4: what is given to it must not lie there already.
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (ours[0][0], ours[1][1])]
        os.close(ours[0][0])
        os.close(ours[1][1])
        self._to, self._from = ours[0][1], ours[1][0]
        self._log = os.open(profile.with_suffix(".log"), os.O_CREAT | os.O_WRONLY)
        self._pid = os.posix_spawn(
            program,
            [
                *(program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
                *("--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={profile}"),
            ],
            os.environ,
            file_actions=[
                *((os.POSIX_SPAWN_DUP2, fd, number) for fd, number in zip(theirs, (3, 4), strict=True)),
                *((os.POSIX_SPAWN_DUP2, self._log, number) for number in (1, 2)),
            ],
        )
        for fd in theirs:
            os.close(fd)
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def close(self) -> None:
        for fd in (self._to, self._from, self._log):
            os.close(fd)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def ask(self, command: str, /, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": command, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def open(self, page: Path | str) -> None:
        """Open a file, or an address, and wait until it is loaded."""
        self.ask("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not self.named("Page.loadEventFired"):
            self.events.append(self._next())

    def evaluate(self, expression: str) -> Any:
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.ask(
                *("Input.dispatchKeyEvent",),
                **{"type": kind, "key": key, "windowsVirtualKeyCode": code},
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def named(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + 60
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(until - time.monotonic(), 0))
            assert ready, "the browser says nothing"
            part = os.read(self._from, 1 << 16)
            assert part, "the browser has gone"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


def open_quietly(browser: Browser, path: Path) -> None:
    """Open a page, and scroll through it so that its lazy pictures load; it must not say or ask anything."""
    browser.events.clear()
    browser.open(path)
    loaded = browser.evaluate(
        "(async () => {"
        " for (const image of document.images) { image.scrollIntoView(); await image.decode(); }"
        " await new Promise((done) => setTimeout(done, 100));"
        " return [...document.images].every((image) => image.naturalWidth === 8); })()"
    )
    assert loaded
    urls = [event["request"]["url"] for event in browser.named("Network.requestWillBeSent")]
    assert path.as_uri() in urls
    assert [url for url in urls if not url.startswith("data:")] == [path.as_uri()]
    for trouble in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
        assert not browser.named(trouble)


def column(browser: Browser, section: str, number: int) -> list[str]:
    rows = f"document.querySelectorAll('#{section} tbody tr')"
    return list(browser.evaluate(f"[...{rows}].map((row) => row.cells[{number}].firstChild.textContent)"))
