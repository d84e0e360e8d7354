"""Options: what a caller says about one entry, and the plan that comes of it."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genesis_cache.model.entry import CachePriority
from genesis_cache.model.errors import InvalidKey
from genesis_cache.model.missing import MISSING, UNSET
from genesis_cache.model.options import OPTION_NAMES, EntryOptions, Plan, plan_of, resolve
from genesis_cache.model.settings import CacheSettings

NOTHING = EntryOptions()
SETTINGS = CacheSettings()


def test_nothing_said_takes_the_defaults_of_the_cache() -> None:
    """A call without options lives an hour, plainly."""
    assert plan_of({}, NOTHING, SETTINGS) == Plan(3600.0)


def test_every_option_reaches_the_plan() -> None:
    """What is said about an entry is what the plan says."""
    worth = bool
    plan = plan_of(
        {
            "ttl": "5m",
            "tags": ["a", "b", "a"],
            "priority": "high",
            "content_type": "Productos",
            "stale_while_revalidate": "1m",
            "stale_if_error": timedelta(hours=1),
            "retry_after": 2,
            "refresh_ahead": 0.5,
            "soft_timeout": "250ms",
            "hard_timeout": 3,
            "jitter": 0.1,
            "negative_ttl": 0,
            "cache_if": worth,
            "version": 4,
            "sensitive": True,
            "isolate": True,
            "tiers": ["Memory", "disk"],
            "owner": "user:7",
            "error_ttl": {LookupError: "1m", OSError: 2},
            "no_stale_on": PermissionError,
            "fallback": [],
            "early_refresh": 1,
            "refresh_every": "30s",
        },
        NOTHING,
        SETTINGS,
    )
    assert plan == Plan(
        300.0,
        ("a", "b"),
        CachePriority.HIGH,
        "productos",
        60.0,
        3600.0,
        2.0,
        0.5,
        0.25,
        3.0,
        0.1,
        0.0,
        worth,
        4,
        True,  # the struct's fields in order
        True,  # as above
        frozenset({"memory", "disk"}),
        "user:7",
        ((LookupError, 60.0), (OSError, 2.0)),
        (PermissionError,),
        [],
        1.0,
        30.0,
    )
    assert EntryOptions.of(error_ttl="1m").error_ttl == ((Exception, 60.0),)
    assert plan.with_tags(("c",)).tags == ("a", "b", "c")
    assert plan.with_tags(("c",)).with_tags(()).fallback is plan.fallback


def test_the_nearest_class_of_an_error_counts() -> None:
    """``error_ttl`` of a class holds for those below it that are not named themselves."""
    plan = plan_of({"error_ttl": {OSError: 5, ConnectionError: 0, Exception: 1}}, NOTHING, SETTINGS)
    spans = [plan.error_ttl_of(error) for error in (FileNotFoundError(), ConnectionResetError(), ValueError())]
    assert spans == [5.0, 0.0, 1.0]
    assert Plan(1.0).error_ttl_of(ValueError()) == 0.0


def test_a_fallback_is_the_callers_own_object() -> None:
    """Equal fallbacks are not confused, and one that cannot be hashed costs nothing extra."""
    first, second = [1], [1]
    assert plan_of({"ttl": 5, "fallback": first}, NOTHING, SETTINGS).fallback is first
    assert plan_of({"ttl": 5, "fallback": second}, NOTHING, SETTINGS).fallback is second
    assert plan_of({"ttl": 5}, NOTHING, SETTINGS).fallback is MISSING


async def _late(error: Exception) -> Exception:
    return error


def test_the_ttl_comes_from_the_nearest_who_gave_one() -> None:
    """Call, then content type, then namespace, then cache."""
    space = EntryOptions.of(ttl=7)
    typed = EntryOptions.of(content_type="embeddings", ttl=7)
    assert plan_of({"ttl": 5, "content_type": "embeddings"}, space, SETTINGS).ttl == 5.0
    assert plan_of({"ttl": None, "content_type": "embeddings"}, space, SETTINGS).ttl is None
    assert plan_of({"content_type": "embeddings"}, space, SETTINGS).ttl == 86400.0
    assert plan_of({}, typed, SETTINGS).ttl == 86400.0
    assert plan_of({"content_type": "unheard_of"}, space, SETTINGS).ttl == 7.0
    assert plan_of({}, space, SETTINGS).ttl == 7.0
    assert plan_of({}, NOTHING, SETTINGS).ttl == 3600.0


def test_a_namespaces_tags_and_a_calls_tags_are_united() -> None:
    """An entry in a tagged namespace has the namespace's tags and its own, each once."""
    space = EntryOptions.of(tags=["shop", "eu"], priority="LOW")
    plan = plan_of({"tags": ("product:1", "eu")}, space, SETTINGS)
    assert plan.tags == ("shop", "eu", "product:1")
    assert plan.priority is CachePriority.LOW


def test_refresh_ahead_is_on_by_strategy() -> None:
    """CACHE_READ_STRATEGY=REFRESH_AHEAD refreshes at 80% of the ttl; a call can say otherwise."""
    settings = CacheSettings.from_env({"CACHE_READ_STRATEGY": "REFRESH_AHEAD"})
    assert plan_of({}, NOTHING, settings).refresh_ahead == 0.8
    assert plan_of({"refresh_ahead": None}, NOTHING, settings).refresh_ahead is None
    assert plan_of({"refresh_ahead": 0.5}, NOTHING, settings).refresh_ahead == 0.5


def test_an_unknown_option_names_its_neighbours() -> None:
    """A typing mistake is an error that names what was probably meant."""
    with pytest.raises(TypeError, match="stale_if_error"):
        EntryOptions.of(stale_on_error=5)
    with pytest.raises(TypeError, match=r"there is no option 'zzz'.*ttl"):
        plan_of({"zzz": 1}, NOTHING, SETTINGS)


def test_tags_as_one_string_is_a_type_error() -> None:
    """``tags="abc"`` does not become three tags."""
    with pytest.raises(TypeError, match=r"tags=\['user:7'\]"):
        EntryOptions.of(tags="user:7")
    with pytest.raises(TypeError):
        plan_of({"tags": b"user:7"}, NOTHING, SETTINGS)
    with pytest.raises(InvalidKey):
        EntryOptions.of(tags=[7])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ttl", 0),
        ("ttl", True),
        ("ttl", "soon"),
        ("tags", 5),
        ("tags", [""]),
        ("priority", "urgent"),
        ("priority", 9),
        ("priority", True),
        ("priority", None),
        ("content_type", 5),
        ("content_type", ""),
        ("stale_while_revalidate", -1),
        ("stale_if_error", "x"),
        ("retry_after", None),
        ("retry_after", -1),
        ("refresh_ahead", 1.5),
        ("refresh_ahead", "half"),
        ("soft_timeout", 0),
        ("hard_timeout", -1),
        ("jitter", float("nan")),
        ("jitter", None),
        ("negative_ttl", -1),
        ("cache_if", 5),
        ("version", "1"),
        ("version", True),
        ("sensitive", 1),
        ("isolate", None),
        ("tiers", "memory"),
        ("tiers", []),
        ("owner", 7),
        ("owner", ""),
        ("error_ttl", -1),
        ("error_ttl", {"OSError": 5}),
        ("error_ttl", {BaseException: 5}),
        ("error_ttl", {OSError: None}),
        ("no_stale_on", "OSError"),
        ("no_stale_on", (KeyboardInterrupt,)),
        ("fallback", _late),
        ("early_refresh", "often"),
        ("early_refresh", True),
        ("early_refresh", -1),
        ("early_refresh", float("inf")),
        ("refresh_every", 0),
    ],
)
def test_a_wrong_value_names_its_option(name: str, value: object) -> None:
    """A value that an option cannot have is an error that names the option."""
    with pytest.raises((TypeError, ValueError), match=name.removesuffix("s")):
        EntryOptions.of(**{name: value})
    with pytest.raises((TypeError, ValueError), match=name.removesuffix("s")):
        plan_of({name: value}, NOTHING, SETTINGS)


@pytest.mark.parametrize("said", ["CRITICAL", "critical", 3, CachePriority.CRITICAL])
def test_a_priority_may_be_said_in_each_way(said: object) -> None:
    """A priority is taken as itself, by its name in any case, or by its number."""
    assert EntryOptions.of(priority=said).priority is CachePriority.CRITICAL


def test_equal_looking_arguments_are_not_confused() -> None:
    """Having seen ``ttl=1`` does not make ``ttl=True`` pass."""
    assert plan_of({"ttl": 1}, NOTHING, SETTINGS).ttl == 1.0
    with pytest.raises(ValueError, match="ttl"):
        plan_of({"ttl": True}, NOTHING, SETTINGS)
    with pytest.raises(TypeError, match="sensitive"):
        plan_of({"sensitive": 1}, NOTHING, SETTINGS)


def test_the_same_options_give_the_same_plan_object() -> None:
    """Repeating a call's options costs a look-up, not a check."""
    options = EntryOptions.of(ttl=9)
    assert resolve(options, NOTHING, SETTINGS) is resolve(options, NOTHING, SETTINGS)
    assert plan_of({"ttl": 9}, NOTHING, SETTINGS) is plan_of({"ttl": 9}, NOTHING, SETTINGS)
    assert plan_of({"ttl": 9}, EntryOptions.of(priority=0), SETTINGS).priority is CachePriority.LOW


def test_many_different_options_stay_right() -> None:
    """More sets of options than are remembered are all still resolved rightly."""
    for ttl in range(1, 3000):
        assert plan_of({"ttl": ttl}, NOTHING, SETTINGS).ttl == ttl


def test_the_more_specific_wins_when_merged() -> None:
    """A view's defaults lie over those of the view it was made from."""
    merged = EntryOptions.of(ttl=5, tags=["b"]).merged(EntryOptions.of(ttl=9, jitter=0.5, tags=["a"]))
    assert (merged.ttl, merged.jitter, merged.tags) == (5.0, 0.5, ("a", "b"))
    assert merged.priority is UNSET
    assert NOTHING.merged(merged) == merged
    assert merged.merged(NOTHING) == merged


def test_options_are_values() -> None:
    """Equal options are equal, can be keys, show what was said, and do not change."""
    one, other = EntryOptions.of(ttl="1m"), EntryOptions(ttl=60)
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == "EntryOptions(ttl=60.0)"
    assert one != EntryOptions()
    with pytest.raises(AttributeError):
        one.ttl = 5  # type: ignore[misc]  # the mistake under test


def test_the_documented_options_are_all_there() -> None:
    """These options and no others exist."""
    documented = (
        "ttl tags priority content_type stale_while_revalidate stale_if_error retry_after refresh_ahead soft_timeout "
        "hard_timeout jitter negative_ttl cache_if version sensitive isolate tiers owner "
        "error_ttl no_stale_on fallback early_refresh refresh_every"
    )
    assert tuple(documented.split()) == OPTION_NAMES


@given(
    call=st.fixed_dictionaries(
        {}, optional={"ttl": st.integers(1, 9), "jitter": st.floats(0, 1), "version": st.integers()}
    ),
    space=st.fixed_dictionaries({}, optional={"ttl": st.integers(1, 9), "jitter": st.floats(0, 1)}),
)
def test_both_roads_to_a_plan_agree(call: dict[str, object], space: dict[str, object]) -> None:
    """The quick road from keyword arguments gives what checking and merging give."""
    defaults = EntryOptions.of(**space)
    plan = plan_of(call, defaults, SETTINGS)
    assert plan == resolve(EntryOptions.of(**call), defaults, SETTINGS)
    for name, value in (space | call).items():
        assert getattr(plan, name) == value
