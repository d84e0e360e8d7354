"""The command line: real commands on a real disk in a temporary folder."""

import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from genesis_cache import Cache
from genesis_cache.cli.app import run
from genesis_cache.testing.servers import PostgresServer, RedisServer

# ruff: noqa: S603  # the commands are this interpreter on this package

COMMAND = [sys.executable, "-c", "from genesis_cache.cli import main; main()"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own, and no setting from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("REDIS_URL", "DATABASE_URL", "CACHE_TIERS", "CACHE_DISK_PATH", "CACHE_LANGUAGE", "CACHE_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    return tmp_path


@pytest.fixture
def document(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, object]]:
    """Runs a command with --json and gives its document after checking the exit code."""

    def call(*arguments: str, code: int = 0) -> dict[str, object]:
        assert run([*arguments, "--json"]) == code
        printed = capsys.readouterr().out
        assert printed.count("\n") == 1
        parsed: dict[str, object] = json.loads(printed)
        return parsed

    return call


def test_a_value_set_by_one_process_is_read_by_the_next() -> None:
    """The default cache keeps values on disk between two invocations of the program."""
    stored = subprocess.run([*COMMAND, "set", "user:7", '{"name": "Ana"}'], capture_output=True, text=True, check=False)
    read = subprocess.run([*COMMAND, "get", "user:7"], capture_output=True, text=True, check=False)
    assert (stored.returncode, stored.stderr) == (0, "")
    assert (read.returncode, read.stderr) == (0, "")
    assert json.loads(read.stdout) == {"name": "Ana"}


@pytest.mark.parametrize(
    ("typed", "kept"),
    [("7", 7), ('{"a": [1, null]}', {"a": [1, None]}), ("null", None), ("plain text", "plain text"), ('"7"', "7")],
)
def test_a_value_is_json_where_it_parses_and_text_otherwise(
    document: Callable[..., dict[str, object]], typed: str, kept: object
) -> None:
    """What is typed as JSON comes back as that JSON, everything else as the text it was."""
    assert document("set", "key", typed) == {"key": "key", "status": "applied", "degraded": []}
    assert document("get", "key") == {"key": "key", "found": True, "value": kept}


def test_a_dash_reads_the_value_from_standard_input(
    document: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long value can be piped in."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("[1, 2]"))
    document("set", "key", "-")
    assert document("get", "key")["value"] == [1, 2]


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """A person who asks for a text gets the text, without quotes."""
    run(["set", "greeting", "hola, señora"])
    capsys.readouterr()
    assert run(["get", "greeting"]) == 0
    assert capsys.readouterr().out == "hola, señora\n"


def test_a_value_that_json_has_no_word_for_is_printed(document: Callable[..., dict[str, object]]) -> None:
    """Keys of a dict that are no text are written as Python writes them, and stop nothing."""
    cache = Cache.from_url("disk://./odd").blocking()
    cache.set("k", {(1, 2): {None: "a"}})
    cache.close()
    assert document("get", "k", "--url", "disk://./odd")["value"] == {"(1, 2)": {"None": "a"}}


def test_a_key_that_is_not_there_is_exit_code_1(
    document: Callable[..., dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A script can tell a missing key from a value, and a person is told in a sentence."""
    assert document("get", "nobody", code=1) == {"key": "nobody", "found": False}
    assert run(["get", "nobody"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "'nobody'" in printed.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["get", "k" * 1025], "1024"),
        (["set", "key", "1", "--ttl", "soon"], "soon"),
        (["set", "key", "1", "--ttl", "0"], "above 0"),
        (["set", "key", "1", "--priority", "urgent"], "urgent"),
        (["set", "key", "1", "--tag", ""], "tag"),
        (["get", "key", "--url", "gopher://x"], "gopher"),
        (["get", "key", "--namespace", ""], "namespace"),
        (["clear", "--yes", "--namespace", ""], "namespace"),
        (["clear", "--yes", "--owner", ""], "owner"),
        (["invalidate"], "--tag"),
        (["invalidate", "--pattern", "***"], "pattern"),
        (["clear", "--json"], "--yes"),
        (["demo", "--seconds", "0.1"], "seconds"),
        (["demo", "--speed", "0"], "speed"),
        (["dance"], "dance"),
        (["get"], "key"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    """What was typed wrongly is named on standard error, without a traceback, and standard output stays empty."""
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert named.lower() in printed.err.lower()
    assert printed.err.count("\n") == 1


def test_a_bad_setting_in_the_environment_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong variable is named, with what is allowed."""
    monkeypatch.setenv("L1_CACHE_SIZE_MB", "large")
    assert run(["stats"]) == 2
    assert "L1_CACHE_SIZE_MB" in capsys.readouterr().err


def test_delete_forgets_the_keys_it_is_given(document: Callable[..., dict[str, object]]) -> None:
    """Deleted keys are gone, others stay."""
    for key in ("a", "b", "c"):
        document("set", key, key)
    assert document("delete", "a", "b")["status"] == "applied"
    document("get", "a", code=1)
    document("get", "b", code=1)
    assert document("get", "c")["value"] == "c"


def test_invalidate_reaches_keys_tags_and_patterns(document: Callable[..., dict[str, object]]) -> None:
    """Each of the three ways forgets what it names and nothing else."""
    document("set", "page:1", "1", "--tag", "news", "--tag", "front")
    document("set", "page:2", "2")
    document("set", "user:1", "3")
    document("set", "user:2", "4")
    assert document("invalidate", "user:2", "--tag", "front", "--pattern", "page:?")["status"] == "applied"
    for key in ("page:1", "page:2", "user:2"):
        document("get", key, code=1)
    assert document("get", "user:1")["value"] == 3


@pytest.mark.parametrize(
    ("where", "typed"), [([], "everything"), (["--namespace", "shop"], "shop"), (["--owner", "user:7"], "user:7")]
)
def test_clear_asks_for_the_name_to_be_typed(
    document: Callable[..., dict[str, object]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    where: list[str],
    typed: str,
) -> None:
    """A "y" out of habit clears nothing; the name of what is to go does, and --yes does not ask."""
    for answer, code in (("y", 1), ("", 1), (typed, 0)):
        document("set", "key", "1", *where)
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{answer}\n"))
        assert run(["clear", *where]) == code
        printed = capsys.readouterr()
        assert f"type {typed}" in printed.err
        assert ("nothing was cleared" in printed.err) is bool(code)
        document("get", "key", *where, code=1 - code)
    document("set", "key", "1", *where)
    assert document("clear", "--yes", *where)["status"] == "applied"
    document("get", "key", *where, code=1)


def test_a_watch_looks_again_and_again(capsys: pytest.CaptureFixture[str]) -> None:
    """A document a line for scripts, a table with what has changed for a person; it ends after so many looks."""
    assert run(["stats", "--watch", "--every", "0.1", "--times", "3", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("layer_statistics" in json.loads(line) for line in lines)
    assert run(["stats", "--every", "0.1", "--times", "2"]) == 0
    assert "since" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: str) -> None:
    """Tab knows the commands and what an option takes."""

    def completed(line: str) -> str:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        asked = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        environ = os.environ | words | asked | {"_GENESIS_CACHE_COMPLETE": f"complete_{shell}"}
        return subprocess.run(COMMAND, capture_output=True, text=True, check=False, env=environ).stdout

    assert "stats" in completed("genesis-cache st")
    assert "critical" in completed("genesis-cache set k v --priority cr")


def test_namespaces_and_owners_keep_to_themselves(document: Callable[..., dict[str, object]]) -> None:
    """The same key is three entries, and clearing a namespace leaves the others."""
    document("set", "key", "1")
    document("set", "key", "2", "--namespace", "shop")
    document("set", "key", "3", "--owner", "user:7")
    document("clear", "--namespace", "shop", "--yes")
    document("get", "key", "--namespace", "shop", code=1)
    assert document("get", "key")["value"] == 1
    assert document("get", "key", "--owner", "user:7")["value"] == 3


def test_a_ttl_and_a_priority_are_kept(document: Callable[..., dict[str, object]]) -> None:
    """What was asked for is what explain shows, on the tier that holds it."""
    document("set", "key", "1", "--ttl", "2h", "--priority", "HIGH", "--tag", "t")
    document("set", "for ever", "1", "--ttl", "none")
    explanation = document("explain", "key")
    held = [tier for tier in explanation["tiers"] if tier["present"]]  # type: ignore[attr-defined]  # a list of tiers
    assert explanation["verdict"] == "fresh"
    assert [tier["tier"] for tier in held] == ["disk"]
    assert 7100 < held[0]["ttl_left"] <= 7200
    assert held[0]["tags"] == ["t"]
    assert "HIGH" in str(held[0]["priority"]).upper()
    forever = [tier for tier in document("explain", "for ever")["tiers"] if tier["present"]]  # type: ignore[attr-defined]  # as above
    assert forever[0]["ttl_left"] is None


def test_explain_says_that_nobody_holds_a_key(
    document: Callable[..., dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same body as for a key that is there, a reason, and exit code 1."""
    explanation = document("explain", "nobody", code=1)
    assert explanation["verdict"] == "absent"
    assert explanation["reason"]
    assert run(["explain", "nobody"]) == 1
    assert "nobody" in capsys.readouterr().out


def test_stats_shows_what_the_disk_holds(
    document: Callable[..., dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A new process counts the entries of earlier ones, as JSON and as a table."""
    document("set", "key", "1")
    layers = document("stats")["layer_statistics"]
    assert layers["l2"]["entries"] == 1  # type: ignore[index]  # a row for each layer
    assert run(["stats"]) == 0
    assert "l2" in capsys.readouterr().out


def test_urls_say_which_tiers_there_are(document: Callable[..., dict[str, object]], folder: Path) -> None:
    """Two folders are two caches, and the default one is not touched."""
    here, there = f"disk://{folder / 'here'}?max_mb=50", f"disk://{folder / 'there'}"
    document("set", "key", "1", "--url", "memory://", "--url", here)
    assert document("get", "key", "--url", here)["value"] == 1
    document("get", "key", "--url", there, code=1)
    assert not (folder / ".genesis-cache").exists()


def test_a_tier_that_is_down_is_told_and_exit_code_1(
    document: Callable[..., dict[str, object]], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A change that not every tier has is degraded, and stats say which tier is out of use and why."""
    (folder / "file").touch()
    tiers = ["--url", "memory://", "--url", f"disk://{folder / 'file'}"]
    assert document("set", "key", "1", *tiers, code=1) == {"key": "key", "status": "degraded", "degraded": ["disk"]}
    layers = document("stats", *tiers, code=1)["layer_statistics"]
    assert (layers["l1"]["up"], layers["l2"]["up"]) == (True, False)  # type: ignore[index]  # a row for each layer
    assert run(["stats", *tiers]) == 1
    printed = capsys.readouterr()
    assert "directory" in printed.out
    assert "down: l2" in printed.err


def test_simulate_compares_policies_on_a_trace(document: Callable[..., dict[str, object]], folder: Path) -> None:
    """Every policy is replayed on the same requests, and none beats the bound of OPT."""
    trace = folder / "trace.txt"
    trace.write_text("".join(f"{number * number % 61}\n" for number in range(3_000)), encoding="utf-8")
    answer = document("simulate", str(trace), "--capacity", "20", "--policy", "LRU", "--policy", "OPT")
    assert answer["requests"] == 3_000
    ratios = {row["policy"]: row["hit_ratio"] for row in answer["results"]}  # type: ignore[attr-defined]  # its rows
    assert set(ratios) == {"LRU", "OPT"}
    assert 0 < ratios["LRU"] <= ratios["OPT"] <= 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--capacity", "10", "--prefetch"],
        ["--max-bytes", "1000"],
        ["--capacity", "0"],
        ["--capacity", "10", "--max-bytes", "10"],
        ["--capacity", "10", "--policy", "MAGIC"],
    ],
)
def test_simulate_refuses_what_it_cannot_do(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str]
) -> None:
    """A wrong or missing bound, an unknown policy and what is not built are bad usage."""
    trace = folder / "trace.txt"
    trace.write_text("1\n2\n1\n", encoding="utf-8")
    assert run(["simulate", str(trace), *arguments]) == 2
    assert capsys.readouterr().out == ""


def test_simulate_names_a_trace_that_it_cannot_read(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there is bad usage, named."""
    assert run(["simulate", "nowhere.txt", "--capacity", "10"]) == 2
    assert "nowhere.txt" in capsys.readouterr().err


def test_bench_measures_every_tier(document: Callable[..., dict[str, object]]) -> None:
    """The floor, the near hits and each far tier have a price, and nothing of it stays behind."""
    results = document("bench")["results"]
    cases = [row["case"] for row in results]  # type: ignore[attr-defined]  # its rows
    assert cases[0] == "empty coroutine"
    assert "disk: get" in cases
    assert all(row["ns_per_op"] > 0 for row in results)  # type: ignore[attr-defined]  # as above
    document("get", "near", "--namespace", "genesis-cache-bench", code=1)


def test_every_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    """--help lists the commands, and each has a line of its own."""
    assert run(["--help"]) == 0
    printed = capsys.readouterr().out
    for command in [
        "demo",
        "stats",
        "get",
        "set",
        "delete",
        "invalidate",
        "clear",
        "explain",
        "doctor",
        "simulate",
        "bench",
    ]:
        assert command in printed


def test_the_doctor_finds_a_sound_cache_well(
    document: Callable[..., dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each tier has findings, none a fault; a person gets a table and a count."""
    told = document("doctor")
    subjects = [finding["subject"] for finding in told["findings"]]  # type: ignore[attr-defined]  # its rows
    assert told["healthy"] is True
    assert {"memory: capacity", "disk: size", "disk: free space"} <= set(subjects)
    assert run(["doctor"]) == 0
    assert "no faults" in capsys.readouterr().out


def test_the_doctor_names_what_is_wrong(
    document: Callable[..., dict[str, object]], capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """A tier that cannot be opened is a fault with its reason and a fix, and exit code 1."""
    (folder / "blocked").write_text("in the way", encoding="utf-8")
    told = document("doctor", "--url", "memory://", "--url", "disk://./blocked", code=1)
    assert told["healthy"] is False
    faults = [finding for finding in told["findings"] if finding["severity"] == "fault"]  # type: ignore[attr-defined]  # its rows
    assert [finding["subject"] for finding in faults] == ["disk: use"]
    assert faults[0]["sentence"]
    assert faults[0]["fix"]
    assert run(["doctor", "--url", "disk://./blocked"]) == 1
    printed = capsys.readouterr()
    assert "1 fault" in printed.out
    assert printed.err == ""


def test_the_doctor_examines_servers(document: Callable[..., dict[str, object]]) -> None:
    """Of real servers that are well nothing is a fault, and each has been asked for its version."""
    with RedisServer() as redis, PostgresServer() as postgres:
        told = document("doctor", "--url", redis.url, "--url", postgres.url)
    subjects = {finding["subject"] for finding in told["findings"]}  # type: ignore[attr-defined]  # its rows
    assert {"redis: version", "database: version"} <= subjects


def test_stats_tells_what_servers_hold(document: Callable[..., dict[str, object]]) -> None:
    """A process that has just begun shows what others have stored on the servers."""
    with RedisServer() as redis, PostgresServer() as postgres:
        places = ("--url", redis.url, "--url", postgres.url)
        document("set", "key", "1", *places)
        rows = document("stats", *places)["layer_statistics"]
    assert [(row["tier"], row["entries"]) for row in rows.values()] == [("redis", 1), ("database", 1)]  # type: ignore[attr-defined]  # its rows


def test_the_doctor_works_where_servers_do_not(
    document: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hangs and one that is not there are faults with their reason, within the timeouts."""
    monkeypatch.setenv("REDIS_SOCKET_TIMEOUT", "0.5")
    with RedisServer() as redis, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        monkeypatch.setenv("REDIS_URL", redis.url)
        monkeypatch.setenv("DATABASE_URL", f"postgresql://ana:hunter2@127.0.0.1:{nobody.getsockname()[1]}/cache")
        redis.freeze()
        told = document("doctor", code=1)
    faults = [finding for finding in told["findings"] if finding["severity"] == "fault"]  # type: ignore[attr-defined]  # its rows
    assert {finding["subject"].partition(":")[0] for finding in faults} == {"redis", "database", "coherence"}
    assert all(finding["sentence"] and finding["fix"] for finding in faults)
    assert "hunter2" not in json.dumps(told)


def test_the_doctor_refuses_settings_that_cannot_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad variable is bad usage, not a finding."""
    monkeypatch.setenv("CACHE_ON_PARTITION", "panic")
    assert run(["doctor"]) == 2
    assert "CACHE_ON_PARTITION" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_traceback() -> None:
    """Output into a pipe that nobody reads any more ends quietly, with exit code 1."""
    long = b"x" * 200_000  # more than a pipe holds
    subprocess.run([*COMMAND, "set", "long", "-"], input=long, stdout=subprocess.DEVNULL, check=True)
    with subprocess.Popen([*COMMAND, "get", "long"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as getting:
        assert getting.stdout is not None
        assert getting.stderr is not None
        getting.stdout.close()
        assert getting.stderr.read() == b""
        assert getting.wait() == 1


def test_without_the_extra_it_says_what_to_install() -> None:
    """A core install has the command, which names the extra to add instead of a traceback."""
    code = "import sys; sys.modules['typer'] = None; from genesis_cache.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "genesis-cache[cli]" in ended.stderr
    assert "Traceback" not in ended.stderr
