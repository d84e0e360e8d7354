"""The dashboard's files, served from the package's own folder and from nowhere else."""

from pathlib import Path

from fastapi import HTTPException
from fastapi.responses import Response

FOLDER = Path(__file__).parent / "dashboard"
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
MOST_CHARACTERS = 60  # of a file's name: a longer one may be more than the file system can be asked for
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page(name: str) -> Response:
    """A file of the dashboard; 404 for anything that is not one, however its path is written."""
    path = (FOLDER / name).resolve() if "\0" not in name and len(name) <= MOST_CHARACTERS else FOLDER
    kind = KINDS.get(path.suffix)
    if kind is None or not path.is_relative_to(FOLDER.resolve()) or not path.is_file():
        raise HTTPException(404, "the dashboard has no such file")
    return Response(path.read_bytes(), headers={**HEADERS, "Content-Type": kind})
