"""A pool that names no levels: operator, gateways and workers have one ladder, and the status says where it is from."""

import json

import pytest
import yaml

from operator_world import pool_document
from pool_scenes import PROFILE, REF, look, wanted
from t2i_api.parse import parse_pool
from t2i_operator.clock import Instant
from t2i_operator.decide.reconcile import decide
from t2i_operator.decide.types import DesiredPool, WriteStatus
from t2i_operator.desired import read_desired
from t2i_operator.manifests import Images
from t2i_policy.level import Level

NOW = Instant(1_800_000_000.0)
IMAGES = Images("gateway:1", "worker:1")
FORECAST = {"skippedSteps": 0, "numInferenceSteps": 12, "forecast": 2}


def profile_with(**level: object) -> str:
    """The embedded model's, and one more level that loses nothing."""
    document = json.loads(PROFILE)
    entry = {"similarityMin": -1.0, "similarityMax": 1.01, "meanLoss": 0.0, "standardError": 0.0, "samples": 99}
    return json.dumps({**document, "losses": [{**level, **entry}]})


def desired(profile: str) -> DesiredPool:
    found = read_desired(REF, pool_document(levels=[]), profile, IMAGES)
    assert isinstance(found, DesiredPool), found
    return found


def ladder_told(wants: DesiredPool) -> dict[str, str]:
    (written,) = (one.status for one in decide(look(wants), wants, NOW).actions if isinstance(one, WriteStatus))
    told: dict[str, str] = written["ladder"]
    return told


def test_gateways_and_workers_read_the_levels_that_the_operator_plans_with() -> None:
    wants = desired(profile_with(**FORECAST))
    (config,) = (one for one in wants.children if one["kind"] == "ConfigMap")
    spec = parse_pool(config["data"]["pool.yaml"]).spec
    assert spec.ladder.levels == wants.spec.ladder.levels == (Level(0, 12), Level(0, 12, forecast=2))
    assert ladder_told(wants)["source"] == "Profile"
    assert "0+f2" in ladder_told(wants)["message"]


def test_another_profile_rolls_the_gateways_that_read_levels_at_their_start() -> None:
    def pods_of(profile: str) -> object:
        (found,) = (one for one in desired(profile).children if one["kind"] == "Deployment")
        return found["spec"]["template"]

    assert pods_of(profile_with(**FORECAST)) != pods_of(profile_with(**{**FORECAST, "forecast": 3}))


@pytest.mark.parametrize(("levels", "source"), [([{}, {"skippedSteps": 6}], "Spec"), ([], "Default")])
def test_documents_of_before_are_handed_on_as_they_are(levels: list[dict[str, int]], source: str) -> None:
    """With a profile of the paper's skips alone: the pods' document does not change, and no gateway restarts."""
    skip = profile_with(skippedSteps=6, numInferenceSteps=12)
    wants = read_desired(REF, pool_document(levels=levels), skip, IMAGES)
    assert isinstance(wants, DesiredPool)
    (config,) = (one for one in wants.children if one["kind"] == "ConfigMap")
    assert len(yaml.safe_load(config["data"]["pool.yaml"])["spec"]["levels"]) == len(levels)
    assert ladder_told(wants)["source"] == source


def test_a_pool_that_names_its_levels_says_so() -> None:
    assert ladder_told(wanted(levels=[{}, {"skippedSteps": 6}])) == {
        "source": "Spec",
        "message": "the pool names its levels",
    }
