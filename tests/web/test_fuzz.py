"""A small dose of drawn requests; the full one is part of the proof."""

import json
import os
import subprocess
import sys

from tests.shape.source import ROOT


def test_every_answer_is_one_that_the_openapi_page_names() -> None:
    """Whatever is sent, no route fails, and no answer is of another kind than documented."""
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "property" / "http_fuzz.py"), "160", "20261121"]
    environ = os.environ | {"PYTHONPATH": str(ROOT / "src")}  # a process of its own: the drawer leaves threads behind
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)  # noqa: S603  # our own
    assert ran.returncode == 0, ran.stderr[-2000:]
    report = json.loads(ran.stdout)
    assert report["faults"] == []
    assert report["requests"] > 50
    assert {"200", "401", "404", "422"} <= set(report["statuses"])
