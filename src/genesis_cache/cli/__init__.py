"""The command `genesis-cache`."""

import sys

_EXTRA = frozenset({"typer", "rich", "pydantic", "shellingham"})


def main() -> None:
    """Run the command line and leave the process with its exit code: 0 done, 1 could not, 2 bad usage."""
    try:
        from genesis_cache.cli.app import run  # noqa: PLC0415  # needs the optional extra "cli"
    except ModuleNotFoundError as missing:
        if missing.name not in _EXTRA:
            raise
        sys.exit(f"genesis-cache needs {missing.name!r}: install it with pip install 'genesis-cache[cli]'")
    sys.exit(run())
