"""Plain values: anything that a cache may hold, in the types that JSON has."""

from typing import Any

import msgspec


def plain(value: object) -> Any:
    """The value as JSON types; bytes in base64, what JSON has no word for as Python writes it."""
    try:
        return msgspec.to_builtins(value, enc_hook=repr, str_keys=True)
    except TypeError:  # a key that is neither text nor a number
        pass
    try:
        return msgspec.to_builtins(spelled(value), enc_hook=repr, str_keys=True)
    except TypeError:  # such a key inside of a class
        return repr(value)


def spelled(value: object) -> object:
    """The value with the keys of its dicts, and text that is no Unicode, spelled so that JSON can take them."""
    match value:
        case dict():
            return {_key(key): spelled(one) for key, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [spelled(one) for one in value]
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
    return value


def _key(key: object) -> object:
    """A key that JSON can take: text and numbers as they are, others as Python writes them."""
    if isinstance(key, str):
        return spelled(key)
    return key if isinstance(key, int | float) and not isinstance(key, bool) else repr(key)
