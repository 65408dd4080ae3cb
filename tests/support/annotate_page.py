"""The annotation page for tests: the command as a process, and a browser on it that is used by keys alone."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "robo_rl", "annotate"]
START_TIMEOUT_S = 60.0


class Served:
    """`robo-rl annotate` on a log, as a process of its own."""

    def __init__(self, log: Path, *arguments: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [*COMMAND, str(log), "--no-browser", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self.output: list[str] = []
        while self.process.stdout is not None and (line := self.process.stdout.readline()):
            self.output.append(line)
            if m := re.search(r"open (http://\S+)", line):
                self.url = m[1]
                return
        pytest.fail(f"the server did not start: {''.join(self.output)}")

    def kill(self) -> None:
        """As a power cut would: no chance to tidy up."""
        self.process.kill()
        self._end()

    def stop(self) -> int:
        """Ctrl-C; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self._end()
        return self.process.returncode

    def _end(self) -> None:
        rest, _ = self.process.communicate(timeout=30)
        self.output.append(rest or "")


class Page:
    """A browser on the page."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        browser.get("about:blank")  # an address that differs in its fragment only would not be loaded anew
        browser.get_log("browser")  # what pages before have complained about
        browser.get(url)
        self.until("document.body.dataset.ready === '1' && annotator.S.version > 0")

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self.browser.execute_script(f"return {expression}")

    def until(self, condition: str, timeout_s: float = 20.0) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + timeout_s
        while not self.js(condition):
            if time.monotonic() > end:
                said = self.js("document.getElementById('saved').textContent")
                pytest.fail(f"not in {timeout_s} s: {condition}; the page says '{said}'; {self.errors()}")
            time.sleep(0.01)

    def press(self, *keys: str) -> None:
        """Types keys where the focus is, as a keyboard does."""
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self.browser, duration=0)
        for key in keys:
            chain = chain.send_keys(key)
        chain.perform()

    def shift(self, key: str) -> None:
        """A key with Shift."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        ActionChains(self.browser, duration=0).key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT).perform()

    def saved(self, count: int) -> None:
        """Waits until so many marks are on the disk and shown."""
        self.until(f"annotator.S.marks.length === {count}")
        self.until("document.getElementById('saved').textContent.startsWith('saved')")

    def marks(self, kind: str) -> list[dict[str, Any]]:
        """Marks of one kind as the page has them."""
        return self.js(f"annotator.S.marks.filter((m) => m.kind === '{kind}')")

    def errors(self) -> list[str]:
        """What the page has complained about."""
        return [e["message"] for e in self.browser.get_log("browser") if e["level"] == "SEVERE"]
