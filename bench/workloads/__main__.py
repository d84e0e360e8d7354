"""Workloads as services have them, each with its bound: `python -m bench.workloads`, or `--quick` for a smoke run."""

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
SECTIONS = ("expiring", "hanging", "serving", "scraping")


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments ask for, each section in a process of its own; a broken one makes the exit code 1."""
    asked = _parser().parse_args(arguments)
    if asked.section:
        section: Section = importlib.import_module(f"bench.workloads.{asked.section}").section(quick=asked.quick)
        sys.stdout.write(msgspec.json.encode(section).decode() + "\n")
        return 0
    sections, broken = [], []
    for name in asked.only or SECTIONS:
        sys.stderr.write(f"{name} ...\n")
        command = [sys.executable, "-W", "ignore", "-m", "bench.workloads", "--section", name]
        command += ["--quick"] if asked.quick else []
        ended = subprocess.run(command, stdout=subprocess.PIPE, check=False, cwd=HERE.parents[1], env=os.environ)
        if ended.returncode:
            sys.stderr.write(f"{name}: broken, exit code {ended.returncode}\n")
            broken.append(name)
        else:
            sections.append(msgspec.json.decode(ended.stdout, type=Section))
    command_line = " ".join(["python -m bench.workloads", *(sys.argv[1:] if arguments is None else arguments)])
    text = page(sections, command_line, quick=asked.quick)
    sys.stdout.write(text)
    target = asked.out or (None if asked.quick or asked.only else HERE / "RESULTS.md")
    if target is not None and not broken:
        Path(target).write_text(text, encoding="utf-8")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.workloads", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short runs: shows that it runs, measures nothing")
    parser.add_argument("--only", action="append", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--out", help="write the page here; without, a full run writes bench/workloads/RESULTS.md")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
