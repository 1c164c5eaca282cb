"""Schemathesis asks the HTTP door what its description allows, and what it does not: every answer is as described."""

from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from t2ictl.local_pool import LocalPool

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]
CASES = 40
ANSWER_LIMIT_S = 60.0


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.name)
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/images/generations"), ("POST", "/v1/images/edits")])
def test_every_answer_is_as_described(pool: LocalPool, mode: Any, method: str, path: str) -> None:
    """No fault, no hang. What the description allows is drawn, or refused for what a schema cannot say."""
    schema = schemathesis.openapi.from_url(f"http://{pool.http_address}/openapi.json")
    seen: Counter[int] = Counter()

    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        response = case.call(timeout=ANSWER_LIMIT_S)
        seen[response.status_code] += 1
        assert response.status_code < 500, response.text
        checks = [status_code_conformance, response_schema_conformance]
        if mode is GenerationMode.NEGATIVE:
            checks.append(negative_data_rejection)
        case.validate_response(response, checks=checks)

    strategy = schema[path][method].as_strategy(generation_mode=mode)
    given(case=strategy)(ask)()
    assert sum(seen.values()) >= CASES // 2, seen
    if mode is GenerationMode.POSITIVE and path.endswith("generations"):
        assert seen[200] >= CASES // 4, seen
