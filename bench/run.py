"""Runs every section in a process of its own and writes one page: `python -m bench`, or `--quick` for a smoke run."""

# ruff: noqa: S603  # it starts this interpreter on this benchmark

import argparse
import importlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
from bench.report import Section, page

HERE = Path(__file__).parent
SECTIONS = (
    "near", "disk", "redis", "postgres", "frozen", "tags", "stampede", "invalidation", "loop", "imports", "ratios",
    "footprint",
)  # fmt: skip
MODULES = {"redis": "far_redis", "postgres": "far_postgres"}  # the others are called as their section


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments ask for; speed never makes the exit code anything but 0, a broken section does."""
    asked = _parser().parse_args(arguments)
    if asked.section:
        sys.path.append(str(HERE))  # hit_ratio.py is also a program of its own, which finds its neighbour beside it
        section: Section = importlib.import_module(f"bench.{MODULES.get(asked.section, asked.section)}").section(
            quick=asked.quick
        )
        sys.stdout.write(msgspec.json.encode(section).decode() + "\n")
        return 0
    sections, broken = [], []
    for name in asked.only or SECTIONS:
        sys.stderr.write(f"{name} ...\n")
        section_or_none = _in_own_process(name, asked)
        if section_or_none is None:
            broken.append(name)
        else:
            sections.append(section_or_none)
    command = " ".join(["python -m bench", *(arguments if arguments is not None else sys.argv[1:])])
    text = page(sections, command, quick=asked.quick)
    sys.stdout.write(text)
    target = asked.out or (None if asked.quick or asked.only else HERE / "RESULTS.md")
    if target is not None and not broken:
        Path(target).write_text(text, encoding="utf-8")
    return 1 if broken else 0


def _in_own_process(name: str, asked: argparse.Namespace) -> Section | None:
    command = [sys.executable, "-W", "ignore", "-m", "bench", "--section", name, *(["--quick"] if asked.quick else [])]
    environment = os.environ | ({"BENCH_TRACES": asked.traces} if asked.traces else {})
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=False, cwd=HERE.parent, env=environment)
    if ended.returncode:
        sys.stderr.write(f"{name}: broken, exit code {ended.returncode}\n")
        return None
    return msgspec.json.decode(ended.stdout, type=Section)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, few rounds: shows that it runs, measures nothing"
    )
    parser.add_argument("--only", action="append", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--out", help="write the page here; without, a full run writes bench/RESULTS.md")
    parser.add_argument("--traces", metavar="DIR", help="replay the traces of this folder instead of the shipped ones")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    return parser
