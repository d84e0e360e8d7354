"""The demo's page: the cache's own figures as JSON and as a small table, over HTTP/1.1 on the loopback address."""

import asyncio
import json
from collections.abc import Callable
from html import escape
from types import TracebackType
from typing import Any, Self

HOST = "127.0.0.1"
READ_SECONDS = 5.0
MAX_HEAD_BYTES = 16_384

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}
_COLUMNS = ("tier", "entries", "size_bytes", "hits", "misses", "hit_ratio", "p50_ms", "p99_ms", "up")
_STYLE = "body{font:16px system-ui;margin:3em}td,th{padding:.3em 1em;text-align:right;border-bottom:1px solid #ccc}"

Answer = tuple[int, str, bytes]


class Page:
    """Serves `figures()` while it is entered; the port is chosen by the system."""

    def __init__(self, figures: Callable[[], dict[str, Any]]) -> None:
        self._figures = figures
        self._server: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=MAX_HEAD_BYTES)
        self.url = f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(_response(*self._answer(head)))
            await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            return  # the visitor went away, or did not speak HTTP
        finally:
            writer.close()

    def _answer(self, head: bytes) -> Answer:
        line = head.split(b"\r\n", 1)[0].split()
        if len(line) != len(("GET", "/", "HTTP/1.1")):
            return 400, "text/plain", b"not HTTP\n"
        if line[0] != b"GET":
            return 405, "text/plain", b"this page is only read\n"
        match line[1].split(b"?")[0]:
            case b"/monitoring/cache":
                return 200, "application/json", json.dumps(self._figures()).encode()
            case b"/":
                return 200, "text/html; charset=utf-8", _html(self._figures()).encode()
            case _:
                return 404, "text/plain", b"here are / and /monitoring/cache\n"


def _response(status: int, kind: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _html(figures: dict[str, Any]) -> str:
    whole = "".join(f"<tr>{_cell(name)}{_cell(value)}</tr>" for name, value in figures["global_statistics"].items())
    head = "".join(f"<th>{escape(name)}</th>" for name in ("layer", *_COLUMNS))
    rows = "".join(
        f"<tr>{_cell(layer)}{''.join(_cell(row.get(name, '')) for name in _COLUMNS)}</tr>"
        for layer, row in figures["layer_statistics"].items()
    )
    return (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="2"><title>Genesis Cache</title>'
        f"<style>{_STYLE}</style><h1>Genesis Cache</h1><table><tr>{head}</tr>{rows}</table><br><table>{whole}</table>"
        '<p><a href="/monitoring/cache">/monitoring/cache</a></p>'
    )


def _cell(value: object) -> str:
    return f"<td>{escape(f'{value:.4g}' if isinstance(value, float) else str(value))}</td>"
