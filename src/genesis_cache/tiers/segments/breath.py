"""Pauses in long walks, so that other threads of the process run meanwhile, above all an event loop."""

import time

_EVERY = 128  # steps between two pauses; about half a millisecond
_PAUSE_S = 0.00005  # long enough for another thread to take the interpreter


def breathe(step: int) -> None:
    """Pause at every 128th step."""
    if step % _EVERY == 0:
        time.sleep(_PAUSE_S)
