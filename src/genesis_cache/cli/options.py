"""The options that commands share: the words of the API, spelled once."""

from enum import StrEnum
from typing import Annotated

import msgspec
import typer

from genesis_cache.cli.output import UsageError
from genesis_cache.model.durations import seconds
from genesis_cache.model.entry import CachePriority
from genesis_cache.model.missing import UNSET, Unset


class PriorityName(StrEnum):
    """A `CachePriority` as it is typed."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def priority(self) -> CachePriority:
        """The priority it names."""
        return CachePriority[self.name]


Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output and nothing else.")]
Urls = Annotated[
    list[str] | None,
    typer.Option("--url", help="A tier, nearest first; repeatable. Without any, the environment says.", metavar="URL"),
]
Namespace = Annotated[str | None, typer.Option("--namespace", help="Only this namespace.", metavar="NAME")]
Owner = Annotated[
    str | None, typer.Option("--owner", help="Only the entries of this owner, as user:7.", metavar="NAME")
]
Ttl = Annotated[
    str | None, typer.Option("--ttl", help="Seconds, or 90s, 5m, 2h, 1d; none never expires.", metavar="TIME")
]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A tag; repeatable.", metavar="TAG")]
Pattern = Annotated[
    str | None, typer.Option("--pattern", help="Keys that match: * and ?, at most two stars.", metavar="GLOB")
]
Priority = Annotated[PriorityName | None, typer.Option("--priority", help="How near it is kept.", case_sensitive=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking for the name to be typed.")]


class Place(msgspec.Struct, frozen=True):
    """Which cache a command is about, and which part of it."""

    urls: tuple[str, ...] = ()
    namespace: str | None = None
    owner: str | None = None


def place(urls: list[str] | None, namespace: str | None = None, owner: str | None = None) -> Place:
    """The place that a command's options name; an empty name is refused, for it would mean everything."""
    for option, name in (("--namespace", namespace), ("--owner", owner)):
        if name == "":
            raise UsageError(f"{option} is empty: give a name, or leave the option out to mean everything")
    return Place(tuple(urls or ()), namespace, owner)


def ttl_of(text: str | None) -> float | Unset | None:
    """Seconds of a ttl as typed; `UNSET` where none was given, None where it never expires."""
    if text is None:
        return UNSET
    try:
        return None if text.lower() == "none" else seconds(text, "--ttl")
    except ValueError as error:
        raise UsageError(str(error)) from None
