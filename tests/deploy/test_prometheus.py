"""A real Prometheus with our configuration, over a real `genesis-cache serve`: the whole way of a figure."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml
from tests.deploy.test_stack import DEPLOY, queries
from tests.web.serving import Served

PATIENCE_S = 90.0


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """The URL of a Prometheus that scrapes a served cache every second; our files, but for where the target is."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("NOT RUN: no prometheus here; install Debian's package prometheus")
    served = Served(tmp_path)
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text("utf-8"))
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = configuration["scrape_configs"]
    del job["dns_sd_configs"], job["relabel_configs"]
    job["static_configs"] = [{"targets": [urlsplit(served.document["urls"]["metrics"]).netloc]}]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(configuration), "utf-8")
    shutil.copy(DEPLOY / "prometheus" / "alerts.yaml", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(  # noqa: S603  # a program of the system
        [
            program,
            f"--config.file={tmp_path}/prometheus.yaml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield f"http://{address}"
    process.terminate()
    process.wait(30)
    served.end(signal.SIGKILL)


def test_every_panel_has_figures_and_every_rule_is_well(prometheus: str) -> None:
    """Prometheus finds the cache, takes its rules, and answers each query of Grafana's dashboard."""
    left = dict(queries())
    end = time.monotonic() + PATIENCE_S
    with httpx2.Client(base_url=prometheus, timeout=10) as client:
        while left and time.monotonic() < end:
            time.sleep(0.5)
            for name, query in list(left.items()):
                try:
                    told = client.get("/api/v1/query", params={"query": query}).json()
                except httpx2.TransportError:
                    break
                assert told["status"] == "success", told
                if told["data"]["result"]:
                    del left[name]
        assert not left
        (target,) = client.get("/api/v1/targets").json()["data"]["activeTargets"]
        assert (target["health"], target["labels"]["job"]) == ("up", "genesis-cache")
        groups = client.get("/api/v1/rules").json()["data"]["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
