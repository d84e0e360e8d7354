"""Histories: what a recorder has written is what is read, even of a process that was killed."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from genesis_cache.testing.history import Change, Get, Recorder, named_value, read_history, read_named


def test_history_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    """Reads, commits, loads, changes, faults and marks come back with their process and their times."""
    recorder = Recorder(tmp_path / "w0.jsonl", "w0")
    with recorder.commit("k", 1):
        pass
    with recorder.load("k", ttl_s=5) as load:
        load.version = 1
    with recorder.change(Change("delete", ("k",))) as change:
        change.outcome = "ok"
    with recorder.fault("freeze", ["w1"]):
        recorder.mark("healed")
    recorder.got(Get("k", 1, 2, version=1, maker=load.name, named="k"))
    recorder.close()
    history = read_history([tmp_path / "w0.jsonl"])
    assert [(c.key, c.version, c.process, c.end is not None) for c in history.commits] == [("k", 1, "w0", True)]
    assert [(one.name, one.version, one.ttl_s) for one in history.loads] == [("w0:2", 1, 5)]
    assert [(c.kind, c.keys, c.outcome) for c in history.changes] == [("delete", ("k",), "ok")]
    assert [(f.name, f.processes) for f in history.faults] == [("freeze", ("w1",))]
    assert [(g.maker, g.process) for g in history.gets] == [("w0:2", "w0")]
    assert history.healed is not None
    assert history.operations == 2
    assert [mark.name for mark in history.marks] == ["healed", "bye"]
    assert history.commits[0].begin <= (history.commits[0].end or 0) <= history.loads[0].begin


def test_what_a_killed_process_was_doing_stays_open(tmp_path: Path) -> None:
    """The beginning of a change is on record before the change begins, so that SIGKILL cannot hide it."""
    path = tmp_path / "w0.jsonl"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover  # it is killed
        with Recorder(path, "w0").change(Change("set", ("k",), version=1)):
            os.write(writer, b"!")
            signal.pause()
    os.read(reader, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    with path.open("ab") as file:
        file.write(b'{"type":"get","key":"k","be')  # as a kill may cut it
    history = read_history([path])
    assert [(c.kind, c.version, c.end, c.outcome) for c in history.changes] == [("set", 1, None, "")]
    assert history.gets == []


def test_cancelled_change_stays_open_and_a_failed_one_says_why(tmp_path: Path) -> None:
    """Nobody knows what became of a cancelled change; an exception is told."""
    recorder = Recorder(tmp_path / "w0.jsonl", "w0")
    for error in (asyncio.CancelledError(), ValueError("no")):
        with pytest.raises(type(error)), recorder.change(Change("delete", ("k",))):
            raise error
    recorder.close()
    cancelled, raised = read_history([tmp_path / "w0.jsonl"]).changes
    assert (cancelled.end, cancelled.outcome) == (None, "")
    assert (raised.outcome, raised.error) == ("raised", "ValueError: no")
    assert raised.end is not None


def test_values_name_themselves() -> None:
    """A value tells its key, version and maker, and that it is whole."""
    value = named_value("a|b|c", 7, "w0:3", padding=10)
    named = read_named(value)
    assert named is not None
    assert tuple(named) == ("a|b|c", 7, "w0:3")
    assert read_named(value | {"version": 8}) is None
    assert read_named(value | {"text": "y" * 10}) is None
    assert read_named("something else") is None


def test_history_in_parts_is_the_whole_history(tmp_path: Path) -> None:
    """Each key's reads, commits and loads are in one part; changes and faults are in every one."""
    recorder = Recorder(tmp_path / "w0.jsonl", "w0")
    for number in range(20):
        recorder.got(Get(f"k{number}", number, number + 1))
        with recorder.commit(f"k{number}", 1):
            pass
    with recorder.change(Change("clear")) as change:
        change.outcome = "ok"
    recorder.close()
    parts = [read_history([tmp_path / "w0.jsonl"], part, 3) for part in range(3)]
    keys = [{get.key for get in one.gets} for one in parts]
    assert sum(len(one.gets) for one in parts) == 20
    assert set.union(*keys) == {f"k{number}" for number in range(20)}
    assert keys == [{commit.key for commit in one.commits} for one in parts]
    assert all(len(one.changes) == 1 for one in parts)
