"""Truth: what the pages list is what there is."""

import re

import pytest
import typer
from tests.docs.snippets import ROOT

from genesis_cache import Cache, CacheError, CachePriority, CacheSettings, EntryOptions
from genesis_cache.cli.app import app
from genesis_cache.model.environment import PRESETS
from genesis_cache.model.events import EVENTS
from genesis_cache.model.options import OPTION_NAMES

GUIDE = ROOT / "docs" / "guide"
REFERENCE = ROOT / "docs" / "reference"


def test_the_settings_page_lists_every_variable_with_its_default() -> None:
    """Each variable is in the table, with the default that it has, and no other is."""
    text = (GUIDE / "settings.md").read_text("utf-8")
    section = text[text.index("## All variables") : text.index("## Presets")]
    table = re.findall(r"^\| (`.+?) \| (.*?) \| ", section, re.MULTILINE)
    listed: dict[str, str] = {}
    for names, default in table:
        found = re.findall(r"(?<!<)\b[A-Z][A-Z0-9]*_[A-Z0-9_]+", names)
        if "…" in names:
            found = [f"L{number}_CACHE_SIZE_MB" for number in range(1, 5)]
        listed.update(zip(found, [default] if len(found) == 1 else default.split(", "), strict=True))
    variables = {name.upper(): value for name, value in CacheSettings().to_dict().items() if name != "content_types"}
    assert set(listed) - {"CACHE_TTL_"} == set(variables)
    for name, value in variables.items():
        said = listed[name].strip("`")
        if value in (None, ()):
            assert said in ("none", "see below")
        elif isinstance(value, float | int):
            assert float(said) == value
        else:
            assert said == value


def test_the_settings_page_lists_the_presets() -> None:
    """The table of presets has the figures of the presets."""
    text = (GUIDE / "settings.md").read_text("utf-8")
    rows = re.findall(r"^\| `([A-Z]+)` \| (\d+) \| (\d+) MB \| (on|off) \|", text, re.MULTILINE)
    assert {name: (int(entries), float(size), word) for name, entries, size, word in rows} == {
        name: (preset.l1_max_entries, preset.disk_mb, "off" if preset.compression == "off" else "on")
        for name, preset in PRESETS.items()
    }


def test_the_commands_page_lists_the_commands() -> None:
    """The page of commands has those that the command line has."""
    listed = re.search(r"genesis-cache ([a-zA-Z| ]+)\n", (REFERENCE / "commands.md").read_text("utf-8"))
    assert listed
    assert {word.split()[0] for word in listed[1].split("|")} == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # it is a group


def test_the_errors_page_lists_the_errors() -> None:
    """Every error of the package is in the table, with the standard error that it also is."""
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (?:`(\w+)`)? ?\|", (REFERENCE / "errors.md").read_text("utf-8"), re.MULTILINE)
    )
    ours = [CacheError, *CacheError.__subclasses__()]
    assert set(rows) == {error.__name__ for error in ours if error.__module__ == "genesis_cache.model.errors"}
    for error in ours:
        also = rows.get(error.__name__)
        assert not also or also in {base.__name__ for base in error.__mro__}


def test_the_logging_page_lists_events_and_figures() -> None:
    """Each event and each figure that the page names exists, and none is left out."""
    text = (GUIDE / "logging.md").read_text("utf-8")
    sentence = re.search(r"The events are (.*?)\. A callback", text, re.DOTALL)
    assert sentence
    assert tuple(re.findall(r"`(\w+)`", sentence[1])) == EVENTS
    figures = Cache.from_url("memory://").analytics()
    for group in ("global_statistics", "layer_statistics"):
        described = re.search(rf"^`{group}`\n: (.*?)\n\n", text, re.MULTILINE | re.DOTALL)
        assert described
        have = figures[group] if group == "global_statistics" else figures[group]["l1"]
        assert set(re.findall(r"`(\w+)`", described[1])) <= set(have)


@pytest.mark.parametrize("option", OPTION_NAMES)
def test_every_option_is_explained(option: str) -> None:
    """Each option has a sentence of its own in the reference, taken from where it is declared."""
    declared = (ROOT / "src" / "genesis_cache" / "model" / "options.py").read_text("utf-8")
    fields = declared[declared.index("class EntryOptions") :]
    assert option in EntryOptions.__annotations__
    assert re.search(rf'^    {option}: [^\n]+\n    """', fields, re.MULTILINE)


def test_every_priority_is_explained() -> None:
    """The page of eviction has a sentence for each priority."""
    text = (GUIDE / "eviction.md").read_text("utf-8")
    for priority in CachePriority:
        assert re.search(rf"^`{priority.name}`\n: ", text, re.MULTILINE)
