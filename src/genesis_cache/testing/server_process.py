"""A server as a child process: started, frozen, thawed, killed, started again, and never left behind.

Whatever happens to the process that started it (even ``kill -9``), a watchdog ends the server and removes its folder.
"""

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

PATIENCE_S = 30.0  # for a server to begin, or to end
POLL_S = 0.005
PORTS = range(20_000, 30_000)  # below those that connections are given, so that a port can be had again after a kill

_UNPRIVILEGED = "nobody"
_WATCHDOG = """
pids=
while read -r line; do pids=$line; done
if [ -n "$pids" ]; then
    kill -CONT $pids; kill -TERM $pids
    sleep 2
    kill -KILL $pids
fi
[ -z "$1" ] || rm -rf -- "$1"
"""


class ServerMissing(RuntimeError):
    """There is no such server on this machine; the message says how to get one."""


class ServerFailed(RuntimeError):
    """A server did not begin; the message ends with the last lines of its log."""


class ServerProcess:
    """One server of this process's own. Not for production: it keeps nothing safe.

    A context manager: it starts on entry and stops on exit. ``folder`` None makes one and removes it at `stop`. Calls
    wait, so make them on a thread that may wait. Safe to stop twice, in any state.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._own_folder = folder is None
        self.folder = new_folder() if folder is None else folder
        self.port = 0
        """Where it listens, on 127.0.0.1; chosen at the first start and kept."""
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The number of its process; `RuntimeError` where it does not run."""
        if self._process is None:
            raise RuntimeError("the server does not run: start it first")
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether its process is there; a frozen one is."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Begin, and wait until it answers; `ServerFailed` where it does not."""
        if self.runs:
            return
        for attempt in range(5):
            self.port = self.port or free_port()
            if self._begin():
                return
            if self.log_tail().count("in use") == 0 or attempt == 4:
                break
            self.port = 0  # somebody was faster: another port
        raise ServerFailed(f"{type(self).__name__} did not begin: {self.log_tail()}")

    def freeze(self) -> None:
        """Stop it in the middle of whatever it does (SIGSTOP): connections stay open, nothing answers."""
        while True:
            fresh = [pid for pid in [self.pid, *children_of(self.pid)] if pid not in self._frozen]
            if not fresh:
                break
            for pid in fresh:  # the parent first, so that it makes no more of them
                _send(pid, signal.SIGSTOP)
            self._frozen += fresh
        self._tell_watchdog(self._frozen)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        frozen, self._frozen = self._frozen, []
        for pid in frozen:
            _send(pid, signal.SIGCONT)
        if self.runs:
            self._tell_watchdog([self.pid])

    def kill(self) -> None:
        """End it as if the machine had lost its power (SIGKILL to all of its processes)."""
        if self._process is None:
            return
        pids = [self._process.pid, *children_of(self._process.pid)] if self.runs else []
        for pid in pids:
            _send(pid, signal.SIGKILL)
        self._ended()
        _wait_until_gone(pids)

    def restart(self) -> None:
        """Kill it and start it again on the same port, with what it had written down."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """End it in good order, and remove its folder if it made one."""
        self.thaw()
        if self.runs:
            _send(self.pid, self._stop_signal())
            try:
                self._ended(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._dismiss_watchdog()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def log_tail(self, lines: int = 8) -> str:
        """The last lines of what it wrote to its log."""
        log = self.folder / "server.log"
        return "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:]) if log.exists() else ""

    # -- what a kind of server says of itself ---------------------------------------------------------------------

    def _command(self) -> Sequence[str | Path]:
        """How it is called; the port is known."""
        raise ServerMissing(f"{type(self).__name__} does not say how it is started")

    def _answers(self) -> bool:
        """Whether it serves by now."""
        return True

    def _stop_signal(self) -> signal.Signals:
        return signal.SIGTERM

    def _user(self) -> str | None:
        """Whom to run it as; None for the user that this process is."""
        return None

    # -- the process ----------------------------------------------------------------------------------------------

    def _begin(self) -> bool:
        who = identity(self._user())
        with (self.folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # a server that was looked for by name
                [os.fspath(word) for word in self._command()],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=who.user,
                group=who.group,
                extra_groups=who.extra_groups,
            )
        self._frozen = []
        self._watch()
        end = time.monotonic() + PATIENCE_S
        while self.runs and time.monotonic() < end:
            if self._answers():
                return True
            time.sleep(POLL_S)
        self.kill()
        return False

    def _ended(self, patience_s: float | None = None) -> None:
        if self._process is not None:
            self._process.wait(patience_s)
            self._process = None
        self._frozen = []
        self._tell_watchdog([])

    def _watch(self) -> None:
        if self._watchdog is None:
            doomed = str(self.folder) if self._own_folder else ""
            self._watchdog = subprocess.Popen(  # noqa: S603  # our own script
                ["/bin/sh", "-c", _WATCHDOG, "watchdog", doomed],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._tell_watchdog([self.pid])

    def _tell_watchdog(self, pids: Sequence[int]) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._watchdog.stdin.write(b" ".join(b"%d" % pid for pid in pids) + b"\n")
                self._watchdog.stdin.flush()

    def _dismiss_watchdog(self) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
            self._watchdog.wait(PATIENCE_S)
            self._watchdog = None


def new_folder() -> Path:
    """A folder for a server: short enough for a socket's name, and open to whom the server runs as."""
    folder = Path(tempfile.mkdtemp(prefix="genesis-"))
    if is_root():
        folder.chmod(0o711)
    return folder


def is_root() -> bool:
    """Whether this process may do anything, which some servers refuse to run with."""
    return os.geteuid() == 0


def unprivileged_user() -> str | None:
    """Whom to run a server as that refuses root; None where this process is not root."""
    return _UNPRIVILEGED if is_root() else None


class Identity(NamedTuple):
    """Whom `subprocess` runs something as; all None for the user that this process is."""

    user: int | None = None
    group: int | None = None
    extra_groups: Sequence[int] | None = None


def identity(name: str | None) -> Identity:
    """What `subprocess` has to be told to run something as another user, without this process's own groups."""
    if name is None:
        return Identity()
    entry = pwd.getpwnam(name)
    return Identity(entry.pw_uid, entry.pw_gid, ())


def give_to(user: str | None, folder: Path) -> None:
    """Make a folder and all in it another user's."""
    if user is None:
        return
    entry = pwd.getpwnam(user)
    for place, _, files in os.walk(folder):
        os.chown(place, entry.pw_uid, entry.pw_gid)
        for file in files:
            os.chown(Path(place, file), entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at now, nor 10,000 above it (where a node of a cluster would)."""
    for _ in range(1000):
        port = random.choice(PORTS)
        if _is_free(port) and _is_free(port + 10_000):
            return port
    raise ServerFailed(f"no free port from {PORTS.start} to {PORTS.stop}")


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, itself not among them."""
    proc = Path("/proc")
    if not (proc / "self" / "stat").exists():
        listed = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
        pairs = [line.split() for line in listed.stdout.splitlines()]
        return [int(child) for child, parent in pairs if int(parent) == pid]
    found = []
    for place in proc.iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                stat = (place / "stat").read_text("utf-8", "replace")
                if int(stat.rpartition(")")[2].split()[1]) == pid:
                    found.append(int(place.name))
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_until_gone(pids: Sequence[int]) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and any(_is_there(pid) for pid in pids):
        time.sleep(POLL_S)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError, IndexError):
        state = Path("/proc", str(pid), "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
        return state != "Z"
    return True
