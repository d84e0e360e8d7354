"""The recorded traffic that the demo plays: real look-ups of an online shop, and which of them are questions.

The recording is by headissue GmbH, Jens Wilke (cache2k), CC BY 4.0; ``data/ATTRIBUTION.md`` says what was changed.
"""

import lzma
from importlib.resources import files

SOURCE = "cache2k orm-busy, © headissue GmbH, Jens Wilke, CC BY 4.0; 1 in 80"

QUESTION_EVERY = 25  # the seed's service makes 25 database queries for each call to its model


def recorded() -> list[int]:
    """The numbers of the objects asked for, in the order recorded."""
    packed = files("genesis_cache.demo").joinpath("data", "shop.keys.xz").read_bytes()
    return [int(line) for line in lzma.decompress(packed).split()]


def is_question(number: int) -> bool:
    """Whether visits to this object ask the assistant about it; the others only read its row."""
    return number % QUESTION_EVERY == QUESTION_EVERY - 1
