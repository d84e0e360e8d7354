"""Notices as bytes in a server's log: one message for all notices of a batch, with the names that they kill."""

from collections.abc import Sequence

import msgspec

from genesis_cache.model.notice import Kind, Notice

_FORMAT = 1

_Line = tuple[Kind, str, str | None, str]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, int, list[_Line]]).decode


def pack_notices(notices: Sequence[Notice], origin: int) -> bytes:
    """What notices kill, in order, and who says so (an unsigned 64-bit number); their sequences travel beside it."""
    return _encode((_FORMAT, origin, [(n.kind, n.namespace, n.owner, n.name) for n in notices]))


def message_head(origin: int) -> bytes:
    """What a message begins with, for a server that puts it together: an array of `notice_name`s has to follow."""
    return b"\x93" + _encode(_FORMAT) + _encode(origin)


def unpack_notices(message: bytes, last_seq: int) -> list[Notice] | None:
    """The notices of a message whose last has the sequence; None where it cannot be read: then forget all."""
    try:
        form, origin, lines = _decode(message)
    except msgspec.DecodeError:
        return None
    if form != _FORMAT:
        return None
    first = last_seq - len(lines) + 1
    return [Notice(*line, seq, origin) for seq, line in enumerate(lines, start=first)]


def notice_name(notice: Notice) -> bytes:
    """What a notice kills, as bytes that are equal for equal targets: the key of a floor on the server."""
    return _encode((notice.kind, notice.namespace, notice.owner, notice.name))


def named_notice(name: bytes, seq: int) -> Notice | None:
    """The notice that `notice_name` encoded; None where it cannot be read."""
    try:
        kind, namespace, owner, target = _decode_name(name)
    except msgspec.DecodeError:
        return None
    return Notice(kind, namespace, owner, target, seq)


_decode_name = msgspec.msgpack.Decoder(_Line).decode
