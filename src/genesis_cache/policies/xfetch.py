"""XFetch: how long before its end an entry is refreshed, by chance, so that its load is over before anybody waits.

A. Vattani, F. Chierichetti, K. Lowenstein, *Optimal probabilistic cache stampede prevention*, VLDB 2015: each request
refreshes where ``cost * beta * -ln(random) >= time left``. Over a stream of requests, n of them in ``cost * beta``
seconds, the time that is left when the first of them does so follows a Gumbel distribution, ``cost * beta * (ln n -
ln(-ln(random)))``. So one draw when the entry is stored stands for all the draws of its requests, and a hit compares
one number that it compares anyway.
"""

from math import log

BUSY_REQUESTS = 100
"""n, in ``cost * beta`` seconds. A quieter key is refreshed at its first hit behind the moment that was drawn."""
MOST_OF_TTL = 0.5
"""The share of its ttl that an entry gives up at most, however long its load takes."""


def early_by(cost_s: float, beta: float, chance: float, ttl: float) -> float:
    """Seconds before the end of ``ttl`` at which a refresh is due; ``chance`` is drawn evenly between 0 and 1.

    On average 5.2 times ``cost_s * beta``; less than ``cost_s * beta`` once in 10^16 draws. Never more than half of
    the ttl.
    """
    if cost_s <= 0 or not 0 < chance < 1:
        return 0.0
    return min(max(cost_s * beta * (log(BUSY_REQUESTS) - log(-log(chance))), 0.0), MOST_OF_TTL * ttl)
