"""Why a value cannot be stored: found deep inside it, told with the path that leads there."""

from typing import NoReturn

from genesis_cache.model.errors import SerializationError

_LABEL_LENGTH = 60
_PATH_LENGTH = 240


class Refusal(Exception):
    """Raised where a part cannot be stored; every container on the way out adds its step to the path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self._steps: list[str] = []

    def within(self, step: str) -> "Refusal":
        """The same, one container further out."""
        self._steps.append(step)
        return self

    def error(self) -> SerializationError:
        """What the caller sees."""
        path = "".join(reversed(self._steps))
        if len(path) > _PATH_LENGTH:
            path = f"{path[: _PATH_LENGTH // 2]} … {path[-_PATH_LENGTH // 2 :]}"
        return SerializationError(f"value{path} cannot be stored: {self.reason}")


def refuse(reason: str) -> NoReturn:
    """Give up on this part."""
    raise Refusal(reason)


def item_step(key: object) -> str:
    """How a path shows one item of a mapping or sequence."""
    return f"[{shown(key)}]"


def shown(value: object) -> str:
    """A short form of a value for a message, whatever its repr does."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # a user's __repr__ may raise anything, and the message matters more
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= _LABEL_LENGTH else text[: _LABEL_LENGTH - 1] + "…"
