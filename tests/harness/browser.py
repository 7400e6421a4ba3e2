"""A headless Chromium, driven through its debugging pipe: what a reader of a page sees, clicks and types.

The Chrome DevTools Protocol, over descriptors 3 and 4: JSON messages that end with a zero byte.
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Browser"]

SECONDS = 60.0
# 3 and 4 are where Chromium reads and writes; a shell puts the pipe there without code between fork and exec.
_PLUMB = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'


class Browser:
    """One tab. A context manager. `complaints` has every exception, console message and refusal of the policy."""

    def __init__(self, profile: Path) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        command = ("chromium-headless-shell", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        offline = ("--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND")
        pipe = ("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank")
        self._process = subprocess.Popen(
            ["bash", "-c", _PLUMB, "browser", str(theirs_in), str(theirs_out), *command, *offline, *pipe],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = ours_out, ours_in
        self._received = b""
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self._open_tab()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)
        os.close(self._out)
        os.close(self._in)

    def open(self, page: Path, fragment: str = "", *, width: int = 1280, height: int = 900) -> None:
        """Show `page` in a window of that size, and return when its script has run to its end."""
        self.complaints.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.ask("Page.navigate", url="about:blank")  # a new fragment alone would not load the page anew
        self.ask("Page.navigate", url=page.as_uri() + fragment)
        deadline = time.monotonic() + SECONDS
        while not self.script("document.documentElement?.dataset.ready === 'yes'"):
            assert time.monotonic() < deadline, f"{page} is not ready: {self.complaints}"

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """The answer to one method of the protocol."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._note(answer)

    def script(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """What can be read in the first element that `selector` names."""
        return str(self.script(f"document.querySelector({json.dumps(selector)}).innerText"))

    def texts(self, selector: str) -> Sequence[str]:
        """The same for every element that it names."""
        return list(self.script(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.innerText)"))

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Click the first element that `selector` names, at those parts of its width and height."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.script(f"{place}.scrollIntoView({{ block: 'center' }})")
        x, y, width, height = self.script(
            f"(({{ x, y, width, height }}) => [x, y, width, height])({place}.getBoundingClientRect())"
        )
        at = {"x": x + width * across, "y": y + height * down, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, **at)

    def press(self, *keys: str) -> None:
        """Press keys by their names (`Tab`, `n`), one after the other, wherever the focus is."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
            code = {"Tab": 9, "Enter": 13, "Escape": 27}.get(key, 0)
            self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
            self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def wait_for(self, expression: str) -> None:
        """Return when the JavaScript expression is true."""
        deadline = time.monotonic() + SECONDS
        while not self.script(f"Boolean({expression})"):
            assert time.monotonic() < deadline, f"never true: {expression}"

    def _open_tab(self) -> None:
        targets = self.ask("Target.getTargets")["targetInfos"]
        tab = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(event["params"]))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            data = os.read(self._in, 1 << 20)
            assert data, "Chromium has ended"
            self._received += data
        message, self._received = self._received.split(b"\0", 1)
        return dict(json.loads(message))
