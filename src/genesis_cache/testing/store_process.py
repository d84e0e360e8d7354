"""Another process that has a store open: it does as it is told, a line of JSON at a time, and can be killed."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from pkgutil import resolve_name
from typing import IO

from genesis_cache.model.clock import SystemClock
from genesis_cache.testing.store_words import address, kill, put, read
from genesis_cache.tiers.base import Kind, Remove, Store

_PROGRAM = "from genesis_cache.testing import store_process; store_process.obey()"
_PATIENCE_S = 30.0  # for the process to answer


class OtherProcess:
    """A process that does as it is told, a line of JSON at a time."""

    def __init__(self, factory: str, path: Path, max_bytes: int) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # this interpreter, with a script of this package
            [sys.executable, "-c", _PROGRAM, factory, str(path), str(max_bytes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        if self.receive() != "ready":
            raise RuntimeError(f"the other process could not open {path}: its errors are above")

    def send(self, *words: str) -> None:
        """Have it do something, without waiting."""
        stdin, _ = self._streams()
        stdin.write(json.dumps(words) + "\n")
        stdin.flush()

    def receive(self) -> object:
        """Its next answer; it is ended if that takes too long."""
        _, stdout = self._streams()
        timer = threading.Timer(_PATIENCE_S, self._process.kill)
        timer.start()
        try:
            return json.loads(stdout.readline() or '"it has ended"')
        finally:
            timer.cancel()

    def ask(self, *words: str) -> object:
        """What it answers to something."""
        self.send(*words)
        return self.receive()

    def kill(self) -> None:
        """End it as if the machine had pulled it out."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        for stream in self._streams():
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _streams(self) -> tuple[IO[str], IO[str]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process was started without its pipes")
        return self._process.stdin, self._process.stdout


def obey() -> None:
    """The life of another process: make the store named on the command line, then do what each line asks."""
    factory, path, max_bytes = sys.argv[1:]
    store: Store = resolve_name(factory)(Path(path), int(max_bytes), SystemClock())
    store.open()
    _say("ready")
    for line in sys.stdin:
        _say(_do(store, *json.loads(line)))


def _say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _do(store: Store, verb: str, *words: str) -> object:
    match verb:
        case "lease":
            return store.lease(address(words[0]))
        case "set":
            return store.commit([put(words[0], words[1].encode())])[0].seq > 0
        case "get":
            found = read(store, words[0])
            return None if found is None else found.decode()
        case "hammer":
            return hammer(store, int(words[0]), int(words[1]))
    return f"no such verb: {verb}"


def hammer(store: Store, seed: int, rounds: int) -> str:
    """Mixed work on a few keys whose values name them; what went wrong, in a sentence, or nothing."""
    dice = random.Random(seed)
    for _ in range(rounds):
        key = f"hammered{dice.randrange(20)}"
        match dice.randrange(6):
            case 0:
                store.commit([put(key, _named(key, dice))])
            case 1:
                since = store.position().seq
                store.commit([put(key, _named(key, dice), since=since)])
            case 2:
                store.commit([Remove(address(key)), kill(Kind.TAG, "red")])
            case _:
                found = read(store, key)
                if found is not None and set(found.split(b";")) != {key.encode()}:
                    return f"{key} gave {found[:60]!r}"
    return ""


def _named(key: str, dice: random.Random) -> bytes:
    return b";".join([key.encode()] * dice.choice((1, 10, 100, 2000)))
