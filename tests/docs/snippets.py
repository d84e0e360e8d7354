"""Documentation as programs: the Python blocks of a page, run one after the other in one namespace."""

import ast
import inspect
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SERVERS = {
    "redis://localhost:6379/0": "redis_url",
    "postgresql://postgres@localhost/cache": "postgres_url",
}
"""The servers that pages name, and the fixture that has a real one."""
FENCE = re.compile(r"^(?P<indent>[ ]*)```python\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """A block of Python in a page."""

    page: Path
    line: int
    code: str

    @property
    def is_python(self) -> bool:
        """Whether it is a program at all; a listing of figures is not."""
        try:
            compile(self.code, "snippet", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        except SyntaxError:
            return False
        return True


def snippets(page: Path) -> Iterator[Snippet]:
    """The Python blocks of a page in order."""
    text = page.read_text("utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("code")) + 1
        indent = found["indent"]
        yield Snippet(page, line, "".join(row.removeprefix(indent) for row in found["code"].splitlines(keepends=True)))


async def run(snippet: Snippet, namespace: dict[str, Any], servers: Mapping[str, str] | None = None) -> None:
    """Run a block; ``await`` may stand at its top level. A failure names the page and the line.

    ``servers`` says where those are that a page names by the URLs of `SERVERS`.
    """
    where = str(snippet.page.relative_to(ROOT))
    padded = "\n" * (snippet.line - 1) + snippet.code
    for said, real in (servers or {}).items():
        padded = padded.replace(said, real)
    code = compile(padded, where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    try:
        result = eval(code, namespace)  # noqa: S307  # our own documentation
        if inspect.isawaitable(result):
            await result
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == where]
        line = frames[-1].lineno if frames else snippet.line
        msg = f"{where}:{line}: {type(error).__name__}: {error}"
        raise AssertionError(msg) from error
