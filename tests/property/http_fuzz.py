"""Requests drawn from the OpenAPI page and around it, sent to the real app; every answer must be one of those it names.

Schemathesis draws bodies, paths, queries and headers that fit the schema and that do not, and checks status codes,
content types, bodies, authentication and methods. What it leaves to us: no answer may be 500, no key of another's may
show, and a refusal must be a sentence.
"""

import json
import random
import sys
from dataclasses import asdict, dataclass, field
from typing import Any
from unittest.mock import patch

import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from genesis_cache import Cache, CacheSettings
from genesis_cache.web import app
from genesis_cache.web.access import RateLimit

TOKEN = "fuzz-token"  # noqa: S105  # of a test
CANARY = "canary-of-somebody-else"
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
STREAMS = "/monitoring/cache/events"  # it does not end by itself


@dataclass
class Report:
    """What a run sent, and what went wrong."""

    requests: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def run(requests: int, seed: int) -> Report:
    """Draw so many requests, half of them sent with the token; fewer are sent where a route knows only a few."""
    report = Report()
    cache = Cache(CacheSettings(cache_tiers=("memory",), cache_control_token=TOKEN))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app(cache))
    operations = [one.ok() for one in schema.get_all_operations() if one.ok().path != STREAMS]
    draw = random.Random(seed)
    with cache.blocking() as blocking, patch.object(RateLimit, "take", lambda _: 0.0):  # a flood is what this is
        blocking.set("mine", CANARY, sensitive=True)
        for operation in operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                examples = max(1, requests // (2 * len(operations)))
                _fuzz(operation, mode, examples, draw, report)
    return report


def _fuzz(operation: Any, mode: GenerationMode, examples: int, draw: random.Random, report: Report) -> None:
    @seeded(draw.randrange(2**32))
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        _send(case, draw, report)

    try:
        send()
    except Unsatisfiable:  # nothing about this route can be wrong
        return


def _send(case: Any, draw: random.Random, report: Report) -> None:
    has_token = draw.random() < 0.5
    headers = dict(case.headers or {})
    headers.pop("Authorization", None)
    if has_token:
        headers["Authorization"] = f"Bearer {TOKEN}"
    case.headers = headers
    response = case.call()
    report.requests += 1
    report.statuses[response.status_code] = report.statuses.get(response.status_code, 0) + 1
    told = f"{case.method} {case.formatted_path} {case.body!r:.200}: {response.status_code} {response.text[:200]}"
    try:
        case.validate_response(response, checks=CHECKS)
    except schemathesis.errors.FailureGroup as failures:
        report.faults += [f"{told}: {failure}" for failure in failures.exceptions]
    if CANARY in response.text:
        report.faults.append(f"{told}: shows what is sensitive")
    if not has_token and case.method.upper() == "POST" and response.status_code not in (401, 405, 429):
        report.faults.append(f"{told}: done without the token")
    if response.status_code in (401, 403, 415, 422) and not isinstance(response.json().get("detail"), str):
        report.faults.append(f"{told}: the refusal is no sentence")


def main() -> None:
    """One run in a process of its own: ``http_fuzz.py REQUESTS SEED``; the report as JSON on standard output."""
    requests, seed = map(int, sys.argv[1:])
    sys.stdout.write(json.dumps(asdict(run(requests, seed))) + "\n")


if __name__ == "__main__":
    main()
