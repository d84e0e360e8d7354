"""Objects that must never be finalized: what is left of a parent's connections, or of those of an ended event loop.

Their finalizers would speak to an event loop that is not theirs any more, or complain that nobody closed them. A list
in a module does not keep them: the interpreter empties modules at its exit, and finalizes what was in them.
"""

import ctypes


def keep_for_ever(*things: object) -> None:
    """Take a reference that nobody ever gives back."""
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
