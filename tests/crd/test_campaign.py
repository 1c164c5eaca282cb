"""Property campaign over the resource's schema: a slice of it here, all of it with `make bench-crd`."""

import pytest

from t2i_testing_kit.crd.campaign import STATES, cases, run_campaign
from t2i_testing_kit.crd.documents import Pools

STRIDE = 13  # of each kind of change


@pytest.mark.timeout(1200)
def test_every_change_is_accepted_or_refused_as_the_parser_says(pools: Pools) -> None:
    """From every state; a refusal changes nothing, and the way back from an accepted change is exact."""
    outcome = run_campaign(pools, cases(STRIDE))
    assert outcome.failures == []
    assert outcome.accepted > 40
    assert outcome.refused > 150


def test_campaign_reaches_every_field_and_kind() -> None:
    """What the generator makes of the schema; a new field must not slip past it."""
    every = list(cases())
    assert {state for state, _, _ in every} == set(STATES)
    fields = {"".join(part for part in mutation.path.split(".")[-1:]) for _, _, mutation in every}
    assert {"skippedSteps", "workers", "mode", "template", "env", "tenants", "storeUrl", "minQualityPercent"} <= fields
    kinds = {mutation.kind for _, _, mutation in every}
    assert {"delete", "empty", "min", "max", "below min", "above max", "enum", "unicode", "type text", "null"} <= kinds
    chosen = list(cases(STRIDE))
    assert {mutation.kind for _, _, mutation in chosen} == kinds, "the slice misses none, however rare"
    assert {state for state, _, _ in chosen} == set(STATES)
    assert len(chosen) < len(every) / STRIDE + len(kinds)
