"""A headless Chromium, told what to do through a pair of pipes by its DevTools protocol."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time

PROGRAM = shutil.which("chromium")
MISSING = "there is no chromium here: apt-get install chromium"
_FIRST_FREE = 10  # the program wants its pipes at descriptors 3 and 4
_LIMIT_S = 60


class Browser:
    """A browser without a network, with one page; to be used in a `with` statement."""

    def __init__(self, profile):
        self.requests = []
        """Addresses of all that the page has asked for, in order."""
        self.messages = []
        """Texts of the console and of what was refused."""
        ours, theirs = [], []
        for end, flag in ((0, 1), (1, 0)):  # what it reads, what it writes
            pair = os.pipe()
            theirs.append(fcntl.fcntl(pair[end], fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE))
            os.close(pair[end])
            ours.append(pair[flag])
        self._to, self._from = ours
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-breakpad",
            "--disable-extensions",
            "--no-first-run",
            "--no-proxy-server",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--force-color-profile=srgb",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        shell = f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", PROGRAM, *options, "about:blank"],
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for descriptor in theirs:
            os.close(descriptor)
        self._number, self._read, self._session = 0, b"", None

    def __enter__(self):
        try:
            pages = []
            while not pages:
                targets = self.tell("Target.getTargets")["targetInfos"]
                pages = [target["targetId"] for target in targets if target["type"] == "page"]
            self._session = self.tell("Target.attachToTarget", targetId=pages[0], flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                self.tell(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        """End the program and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        begun = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() - begun < _LIMIT_S:
                os.killpg(self._process.pid, 0)
                time.sleep(0.01)

    def tell(self, method, **parameters):
        """Give a command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def visit(self, path):
        """Load a file and wait until it is there."""
        self.tell("Page.navigate", url=path.as_uri())
        while (answer := self._next()).get("method") != "Page.loadEventFired":
            self._note(answer)

    def ask(self, expression):
        """Return the value of an expression of JavaScript in the page."""
        answer = self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def show(self, width, height=900, scheme="light"):
        """Take a width in pixels, and the colours of the day or of the night."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.tell("Emulation.setDeviceMetricsOverride", **size)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path):
        """Write the whole page as PNG."""
        shot = self.tell("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _note(self, message):
        name, content = message.get("method"), message.get("params", {})
        if name == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])
        elif name == "Log.entryAdded":
            self.messages.append(content["entry"]["text"])
        elif name == "Runtime.exceptionThrown":
            self.messages.append(content["exceptionDetails"]["text"])

    def _next(self):
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._from], [], [], _LIMIT_S)
            assert ready, "chromium does not answer"
            part = os.read(self._from, 1 << 20)
            assert part, "chromium has ended"
            self._read += part
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)
