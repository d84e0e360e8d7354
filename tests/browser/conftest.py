"""A real Chromium, and real servers for it to look at; whatever a page complains of fails its test.

Where Chromium is missing these checks are named as not run; Debian's package is ``chromium``.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.shape.source import ROOT
from tests.web.serving import Served

TOKEN = "t0k3n"  # noqa: S105  # of a test
PATIENCE_MS = 60_000
ANSWERS = re.compile(r"/cache/(keys/|clear$|invalidate$)")  # a refusal by these is an answer that the page shows
NAMES = ("chromium", "chromium-browser", "google-chrome")
LIVE = Path(__file__).with_name("live.py")


class Process:
    """A server of our own: it prints its address, and ends when its standard input is closed."""

    def __init__(self, folder: Path, *urls: str, token: str = TOKEN, port: int = 0) -> None:
        command = [sys.executable, "-W", "error", str(LIVE), str(port), token, *urls]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("CACHE_", "REDIS_"))}
        self._process = subprocess.Popen(  # noqa: S603  # our own
            command,
            cwd=folder,
            env=environ | {"PYTHONPATH": str(ROOT / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.base = self._process.stdout.readline().strip()
        self.page = f"{self.base}/monitoring/cache/dashboard"

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.base).port or 0

    def end(self) -> None:
        """Let it stop by itself, or end it."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts shops behind a cache; ended when the test is over."""
    started: list[Process] = []

    def start(*urls: str, **options: Any) -> Process:
        started.append(Process(tmp_path, *urls, **options))
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One shop for all tests that take nothing from each other: a memory that is too small, and a disk."""
    folder = tmp_path_factory.mktemp("shop")
    process = Process(folder, "memory://?max_mb=1", f"disk://{folder}/disk?max_mb=20")
    yield process
    process.end()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """`genesis-cache serve` with memory and disk, and no token."""
    server = Served(tmp_path)
    yield server
    server.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The installed browser, without a window."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="NOT RUN: the package playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("NOT RUN: no Chromium here; install Debian's package chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Tab:
    """A page, and everything that it complained of."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}, "locale": "en-GB", **options})
        self.context.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.page = self.context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)
        self.host = ""

    def open(self, url: str) -> Any:
        """Go there, and wait until the first figures are shown."""
        self.host = urlsplit(url).netloc
        self.page.goto(url)
        self.page.wait_for_selector("#funnel tbody tr", state="attached")
        return self.page

    def _said(self, message: Any) -> None:
        was_refused = "Failed to load" in message.text and ANSWERS.search(message.location["url"])
        was_looked_at = "willReadFrequently" in message.text  # by the tests, for what charts have painted
        if message.type in ("error", "warning") and not was_refused and not was_looked_at:
            self.complaints.append(message.text)

    def _asked(self, request: Any) -> None:
        place = urlsplit(request.url)
        if place.scheme not in ("data", "blob") and place.netloc != self.host:
            self.complaints.append(f"asked {request.url}")


@pytest.fixture
def tab(chromium: Any) -> Iterator[Callable[..., Tab]]:
    """Opens tabs, each as if nobody had used the browser before; a complaint of any of them fails the test."""
    opened: list[Tab] = []

    def new(**options: Any) -> Tab:
        opened.append(Tab(chromium, **options))
        return opened[-1]

    yield new
    for one in opened:
        one.context.close()
    assert [complaint for one in opened for complaint in one.complaints] == []


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., None]:
    """Keeps a screenshot: in the folder that DASHBOARD_PICTURES names, which is how those of the guide are made."""
    wanted = os.environ.get("DASHBOARD_PICTURES")
    folder = Path(wanted or tmp_path)

    def take(page: Any, name: str, after_s: float = 0.0, **options: Any) -> None:
        if wanted:
            page.wait_for_timeout(after_s * 1000)  # the guide shows charts that are full
        page.evaluate("scrollTo(0, 0)")
        (folder / f"dashboard-{name}.png").write_bytes(page.screenshot(**options))

    return take
