"""How the demo tells its story: the sentences and the table of each part, on the screen there is."""

from collections.abc import Sequence

from genesis_cache.demo import figures
from genesis_cache.demo.backend import ANSWER_SECONDS, ANSWER_USD, ROW_SECONDS
from genesis_cache.demo.screen import Row, Screen
from genesis_cache.demo.traffic import SOURCE
from genesis_cache.demo.words import Words

HIT_RATIO_GOAL = 0.85  # this and the changes below are what the project's first document promised
CHANGE_GOALS = {
    "goal_latency": ("latency_mean_ms", -0.80),
    "goal_database": ("database_queries", -0.70),
    "goal_cost": ("model_usd", -0.60),
}

COMPARED = {
    "latency_mean_ms": "latency_mean",
    "latency_p50_ms": "latency_p50",
    "latency_p99_ms": "latency_p99",
    "answer_mean_ms": "answer_mean",
    "row_mean_ms": "row_mean",
    "database_queries_per_minute": "queries",
    "model_calls_per_minute": "calls",
    "model_usd_per_hour": "usd",
}
"""The figures that are compared, and the word for each."""

_WHOLE = 100  # from here a count is told without decimals


class Teller:
    """Says what was measured, in one language, on one screen."""

    def __init__(self, words: Words, screen: Screen) -> None:
        self.words = words
        self.screen = screen

    def introduce(
        self, *, requests: int, objects: int, rate: float, speed: float, url: str, tiers: Sequence[str]
    ) -> None:
        """What is about to be measured."""
        say, words, number = self.screen.say, self.words, self.words.number
        scale = number(speed, 0 if speed.is_integer() else 1)
        waits = words.waits_real if speed == 1 else words.waits_scaled.format(speed=scale)
        costs = {"row": words.ms(ROW_SECONDS * 1000), "answer": words.ms(ANSWER_SECONDS * 1000)}
        self.screen.heading(words.title)
        say(words.traffic.format(requests=number(requests), objects=number(objects)))
        say(f"         {SOURCE}", "dim")
        say(words.backend.format(usd=number(ANSWER_USD, 3), **costs))
        say(words.pace.format(rate=number(rate), waits=waits))
        say(words.tiers.format(tiers=", ".join(tiers)))
        say(words.page.format(url=url), "bold")
        say("")

    def compare(self, before: figures.Figures, after: figures.Figures) -> None:
        """The table, and whether it reaches what was promised."""
        words = self.words
        tenths = " ".join(words.number(share * 100) for share in after.at_once_by_tenth)
        self.screen.say(words.warm_up.format(tenths=tenths), "dim")
        self.screen.say("")
        self.screen.table(("", words.before, words.after, words.change), self._rows(before, after))
        reached = {words.goal_hits: (after.hit_ratio or 0.0) >= HIT_RATIO_GOAL}
        for word, (name, most) in CHANGE_GOALS.items():
            reached[getattr(words, word)] = figures.change(getattr(before, name), getattr(after, name)) <= most
        marks = "   ".join(f"{'✓' if held else '✗'} {name}" for name, held in reached.items())
        self.screen.say(f"{words.goals}: {marks}", "green" if all(reached.values()) else "yellow")

    def update(self, update: figures.Update) -> None:
        """A price before and after its invalidation."""
        say, words = self.screen.say, self.words
        self.screen.heading(words.update_title)
        say(words.update_old.format(took=words.ms(update.old_ms), answer=_short(update.old_answer)))
        say(words.update_done.format(number=update.number), "bold")
        say(words.update_new.format(took=words.ms(update.new_ms), answer=_short(update.new_answer)))
        say(words.update_again.format(took=words.ms(update.again_ms)))

    def freeze(self, freeze: figures.Freeze) -> None:
        """A server that hung, and who noticed."""
        words = self.words
        told = {"seconds": words.number(freeze.seconds), "requests": words.number(freeze.requests)}
        times = {"before": words.ms(freeze.before_p99_ms), "during": words.ms(freeze.during_p99_ms)}
        self.screen.heading(words.freeze_title)
        self.screen.say(words.freeze.format(**told, **times))
        if freeze.back_ms is not None:
            self.screen.say(words.freeze_back.format(back=words.ms(freeze.back_ms)))

    def restart(self, restart: figures.Restart, *, shared: bool) -> None:
        """What came back from disk, or from the servers."""
        words = self.words
        told = {"asked": words.number(restart.asked), "calls": words.number(restart.backend_calls)}
        told["where"] = words.from_shared if shared else words.from_disk
        times = {"p50": words.ms(restart.latency_p50_ms), "p99": words.ms(restart.latency_p99_ms)}
        self.screen.heading(words.restart_title)
        self.screen.say(words.restart.format(**told, **times))

    def serving(self, url: str, token: str) -> None:
        """Where the figures go on, and the token that makes the cache forget."""
        self.screen.say("")
        self.screen.say(self.words.serving)
        self.screen.say(url, "bold")
        self.screen.say(self.words.control.format(token=token))

    def _rows(self, before: figures.Figures, after: figures.Figures) -> list[Row]:
        words = self.words
        rows: list[Row] = []
        for name, label in COMPARED.items():
            old, new = getattr(before, name), getattr(after, name)
            told = words.ms if name.endswith("_ms") else self._count
            rows.append((getattr(words, label), told(old), told(new), words.percent(figures.change(old, new))))
        rows.append((words.hit_ratio, "-", words.percent(after.hit_ratio or 0.0), ""))
        return rows

    def _count(self, value: float) -> str:
        return self.words.number(value, 0 if value >= _WHOLE else 2)


def _short(answer: str) -> str:
    return answer.partition(";")[0]
