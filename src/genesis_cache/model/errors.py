"""The errors a user can meet; each message says what was wrong and what to do.

CacheError
    InvalidKey           a key, tag, pattern, namespace or owner that cannot be one
    SettingsError        a setting or environment variable with a value that is not allowed
    SerializationError   a value that cannot be stored so that it comes back as the type it was
    LoaderTimeout        a loader that passed its deadline with no older value to serve
    SecurityError        an operation refused because it could leak or forge a value
    CacheClosed          a call on a cache that was closed
"""


class CacheError(Exception):
    """Root of every error this package raises by itself."""


class InvalidKey(CacheError, ValueError):
    """A key, tag, pattern, namespace or owner is not usable; nothing was read or written."""


class SettingsError(CacheError, ValueError):
    """A setting is outside what is allowed; the message names it, its value and what is allowed."""


class SerializationError(CacheError, TypeError):
    """A value cannot be kept outside memory so that it comes back as the type it went in."""


class LoaderTimeout(CacheError, TimeoutError):
    """A loader passed its deadline and no older value could be served."""


class SecurityError(CacheError):
    """An operation was refused because it could leak or forge a value."""


class CacheClosed(CacheError, RuntimeError):
    """The cache was closed; open a new one or call ``open()`` again."""
