"""What stands around a cache in production: rules, panels, the stack; checked by the tools they are made for."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tests.shape.source import ROOT

from genesis_cache import Cache, CacheSettings
from genesis_cache.export.prometheus import exposition

DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "genesis-cache.json"


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own checker."""
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("NOT RUN: no promtool here; install Debian's package prometheus")
    return path


def checked(promtool: str, *words: str | Path, text: str | None = None) -> None:
    """Fail with what promtool says, if it says no."""
    ran = subprocess.run([promtool, *words], input=text, capture_output=True, text=True, check=False)  # noqa: S603  # its own words
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "lint" not in ran.stderr.lower()


def built() -> ModuleType:
    """The script that makes the dashboard."""
    spec = importlib.util.spec_from_file_location("grafana_build", DEPLOY / "grafana" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def panels() -> list[dict[str, Any]]:
    """Grafana's panels, without the rows between them."""
    return [panel for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Each panel's queries as Prometheus gets them: the variables in their places."""
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m").replace("$job", ".+")
            yield f"{panel['title']} {target['refId']}", expression


async def exported() -> str:
    """The metrics of a cache that is used in every way that is counted."""
    async with Cache.from_url("memory://") as cache:
        await cache.get_or_set("k", lambda: 1)
        await cache.get("k")
        await cache.delete_by_tag("t")
        return exposition(cache.measures())[0].decode()


def test_the_rules_and_the_configuration_are_sound(promtool: str) -> None:
    """Promtool takes the scrape configuration with the alerts it names."""
    checked(promtool, "check", "config", DEPLOY / "prometheus" / "prometheus.yaml")
    checked(promtool, "check", "rules", DEPLOY / "prometheus" / "alerts.yaml")


def test_each_alert_fires_when_it_should_and_says_what_it_means(promtool: str) -> None:
    """One hit in four reads fires the low hit ratio after ten minutes; so does each other alert in its case."""
    folder = DEPLOY / "prometheus"
    checked(promtool, "test", "rules", folder / "alerts.test.yaml")
    rules = [
        rule for group in yaml.safe_load((folder / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
    ]
    cases = yaml.safe_load((folder / "alerts.test.yaml").read_text())["tests"]
    shown = {one["alertname"] for case in cases for one in case["alert_rule_test"] if one.get("exp_alerts")}
    assert shown == {rule["alert"] for rule in rules if "alert" in rule}


def test_each_alert_has_its_runbook() -> None:
    """The page has a part for every alert, and the alert says where."""
    page = (ROOT / "docs" / "guide" / "deploy.md").read_text("utf-8")
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        assert f"### {rule['alert']}\n" in page
        assert rule["annotations"]["runbook"] == f"docs/guide/deploy.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical")


async def test_our_metrics_are_what_prometheus_asks_of_metrics(promtool: str) -> None:
    """Promtool finds nothing to lint in our own output."""
    checked(promtool, "check", "metrics", text=await exported())


async def test_every_metric_that_is_asked_for_is_exported() -> None:
    """No panel and no alert waits for a metric that nobody sends."""
    text = await exported()
    asked = " ".join([*(query for _, query in queries()), (DEPLOY / "prometheus" / "alerts.yaml").read_text()])
    names = set(re.findall(r"(?<![:\w#])cache_[a-z_]+", asked)) - {"cache_reads", "cache_hit_ratio"}
    assert len(names) > 10
    assert {name for name in names if not re.search(rf"^{name}\b", text, re.MULTILINE)} == set()


def test_the_dashboard_is_the_one_that_its_script_makes() -> None:
    """Whoever changes the script runs it; whoever changes the JSON loses it."""
    assert DASHBOARD.read_text("utf-8") == built().text()


def test_every_panel_says_what_it_shows_and_stands_in_a_place_of_its_own() -> None:
    """Title, description, unit and data source; no two panels share a number or a place on the grid."""
    everything = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken = set()
    for panel in everything:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in panels():
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(one["datasource"]["uid"] == "$datasource" for one in (panel, *panel["targets"]))


async def test_every_query_of_a_panel_gives_figures(promtool: str, tmp_path: Path) -> None:
    """Over series like those that we export, promtool finds an answer to each query of the dashboard."""
    rules = [{"alert": name, "expr": f"count({query}) > 0"} for name, query in queries()]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked(promtool, "check", "rules", tmp_path / "panels.yaml")
    series = []
    for line in (await exported()).splitlines():
        if line.startswith("#") or "_created" in line:
            continue
        name, _, labels = line.rpartition(" ")[0].partition("{")
        said = ",".join(filter(None, ['job="shop",instance="a"', labels.rstrip("}")]))
        grows = name.endswith(("_total", "_bucket", "_count", "_sum"))
        series.append({"series": f"{name}{{{said}}}", "values": "0+7x30" if grows else "1x30"})
    wanted = [{"alertname": name, "eval_time": "20m", "exp_alerts": [{}]} for name, _ in queries()]
    case = {"interval": "1m", "input_series": series, "alert_rule_test": wanted}
    test = {"rule_files": ["panels.yaml"], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    checked(promtool, "test", "rules", tmp_path / "test.yaml")


def test_the_stack_has_every_part_and_every_file_that_it_mounts() -> None:
    """App, Redis, PostgreSQL, Prometheus, Grafana and a demo; nothing is mounted that is not there."""
    stack = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    services = stack["services"]
    assert set(services) == {"app", "demo", "redis", "postgres", "prometheus", "grafana"}
    assert services["demo"]["profiles"] == ["demo"]
    for service in services.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in stack["volumes"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert (DEPLOY / services["app"]["build"]["context"] / services["app"]["build"]["dockerfile"]).is_file()
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana" / "dashboards" / Path(home).name).is_file()


def test_the_stack_sets_what_the_settings_know() -> None:
    """Every variable of the app is a setting, and together they make the three layers."""
    stack = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    environ = {
        name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value)
        for name, value in stack["services"]["app"]["environment"].items()
    }
    settings = CacheSettings.from_env(environ)
    assert settings.cache_tiers == ("memory", "redis", "database")
    assert settings.cache_control_token is None
    assert {name.lower() for name in environ} <= set(CacheSettings.__dataclass_fields__)


def test_the_image_runs_without_rights_and_tells_its_health() -> None:
    """Not as root, with a check of /healthz, and from files that the context lets in."""
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1] not in ("root", "0")
    assert any("/healthz" in line for line in lines)
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    allowed = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in allowed
