"""Proof: the full doses of faults, kills and fuzzing, run by ``make prove``, their figures written to docs/proof.md.

A file in ``tests/crash``, ``chaos``, ``property`` or ``coherence`` takes part by a function ``prove(dose)``, plain or
async: it runs ``dose`` times its full dose and returns its figures by name. ``faults`` among them is a list of
sentences, one for each thing that went wrong; anything it raises counts as one. Every property of the test suite is run
as well, with a hundred times the examples of ``make test``.
"""

import argparse
import asyncio
import importlib.util
import inspect
import os
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "proof.md"
FOLDERS = ("crash", "chaos", "property", "coherence")
MARKS = ("<!-- figures -->", "<!-- end of figures -->")
HYPOTHESIS_EXAMPLES = 5_000


@dataclass(frozen=True)
class Result:
    """What one proof showed."""

    name: str
    meaning: str
    figures: Mapping[str, object]
    faults: tuple[str, ...]
    seconds: float

    def row(self) -> str:
        """Its line in the table."""
        figures = ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in self.figures.items())
        return f"| {self.name} | {self.meaning} | {figures} | {len(self.faults)} | {self.seconds:,.0f} |"


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if isinstance(value, float) else str(value)


def proofs() -> Iterator[tuple[str, ModuleType]]:
    """The files that have a ``prove``."""
    sys.path.insert(0, str(ROOT / "src"))
    for folder in FOLDERS:
        place = ROOT / "tests" / folder
        sys.path.insert(0, str(place))  # drivers import those that lie beside them
        for path in sorted(place.glob("*.py")):
            if not re.search(r"^(async )?def prove\(", path.read_text("utf-8"), re.MULTILINE):
                continue
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None:
                continue
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module
            spec.loader.exec_module(module)
            yield f"{folder}/{path.stem}", module


def run(name: str, meaning: str, prove: Callable[[float], object], dose: float) -> Result:
    """One proof with its dose; what it raises is a fault."""
    start = time.monotonic()
    figures: dict[str, object] = {}
    faults: list[str] = []
    try:
        answer = prove(dose)
        if inspect.iscoroutine(answer):
            answer = asyncio.run(answer)
        if not isinstance(answer, Mapping):
            msg = f"prove() returned {type(answer).__name__}, not figures by name"
            raise TypeError(msg)  # noqa: TRY301  # a fault like any other
        figures = dict(answer)
        told = figures.pop("faults", [])
        faults = [str(fault) for fault in told] if isinstance(told, list | tuple) else [str(told)] if told else []
    except Exception as error:  # noqa: BLE001  # whatever it is, it goes into the report
        traceback.print_exc()
        faults.append(f"{type(error).__name__}: {error}")
    return Result(name, meaning, figures, tuple(faults), time.monotonic() - start)


def properties(dose: float) -> dict[str, object]:
    """Every Hypothesis test with a full dose of examples."""
    examples = max(1, int(HYPOTHESIS_EXAMPLES * dose))
    environ = os.environ | {"HYPOTHESIS_PROFILE": "full", "HYPOTHESIS_EXAMPLES": str(examples)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--quiet",
        "--timeout=0",
        "-m",
        "hypothesis",
        "tests/unit",
        "tests/property",
    ]
    ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)  # noqa: S603  # our own
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", ran.stdout)}
    if ran.returncode:
        sys.stderr.write(ran.stdout[-20_000:])
    failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", ran.stdout, re.MULTILINE)
    faults = failed or ([] if ran.returncode == 0 else [ran.stdout[-300:] or ran.stderr[-300:]])
    return {"properties": counts.get("passed", 0), "examples_each": examples, "faults": faults}


def report(results: list[Result], dose: float) -> str:
    """The figures as a page's middle part."""
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    lines = [
        f"Run on {datetime.now(UTC):%Y-%m-%d}, dose {dose:g}; {machine}.",
        "",
        "| proof | what it does | figures | faults | seconds |",
        "|---|---|---|---|---|",
        *(result.row() for result in results),
        "",
    ]
    for result in results:
        lines += [f"- **{result.name}**: {fault.splitlines()[0][:300]}" for fault in result.faults]
    return "\n".join(lines).rstrip() + "\n"


def write(text: str) -> None:
    """Put the figures between the page's marks."""
    page = PAGE.read_text("utf-8")
    begin, end = (re.escape(mark) for mark in MARKS)
    middle = f"{MARKS[0]}\n\n{text}\n{MARKS[1]}"
    PAGE.write_text(re.sub(f"{begin}.*?{end}", lambda _: middle, page, flags=re.DOTALL), "utf-8")


def main() -> int:
    """Run every proof; 0 if none showed a fault."""
    parser = argparse.ArgumentParser(prog="make prove", description="Full doses of faults, kills and fuzzing.")
    parser.add_argument("--dose", type=float, default=1.0, help="share of the full dose (default: 1)")
    parser.add_argument("--only", help="only proofs whose name contains this")
    parser.add_argument("--no-page", action="store_true", help="do not write docs/proof.md")
    said = parser.parse_args()
    todo = [(name, module.prove, (module.__doc__ or name).partition("\n")[0]) for name, module in proofs()]
    todo.append(("properties", properties, "Runs every property of the test suite with many examples."))
    results = []
    for name, prove, meaning in todo:
        if said.only and said.only not in name:
            continue
        print(f"{name}: {meaning}", flush=True)
        results.append(run(name, meaning.partition(": ``")[0].rstrip("."), prove, said.dose))
        print(f"  {results[-1].row()}", flush=True)
    if not said.no_page and not said.only:
        write(report(results, said.dose))
    return int(any(result.faults for result in results))


if __name__ == "__main__":
    sys.exit(main())
