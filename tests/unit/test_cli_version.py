"""The command's own options."""

import pytest

from genesis_cache import __version__
from genesis_cache.cli.app import run


def test_version_needs_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    """genesis-cache --version says which and exits 0."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == __version__ + "\n"
