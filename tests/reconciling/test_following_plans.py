"""Which plan a gateway follows: the newest it has seen of the pool that is there, whatever it is answered later."""

from typing import Any

import pytest

from t2i_api.plan import PlanError, render_plan
from t2i_gateway.plan_feed import PlanInForce, newer_plan
from t2i_policy.level import Level
from t2i_policy.planning.plan import Plan, PlanOutcome

EARLY, LATE = "2026-11-26T10:00:00Z", "2026-11-26T10:00:05Z"
RUNNING = PlanInForce("uid-1", 5, EARLY)


def pool(revision: int, uid: str = "uid-1", created: str = EARLY) -> dict[str, Any]:
    """A pool whose status holds a plan of this revision."""
    level = Level(0, 12)
    plan = Plan({("a", level): 2}, outcome=PlanOutcome.NO_DEMAND, numbers={("a", level): (0, 1)}, revision=revision)
    document = render_plan(plan).model_dump(by_alias=True, mode="json", exclude_none=True)
    return {"metadata": {"uid": uid, "creationTimestamp": created}, "status": {"plan": document}}


@pytest.mark.parametrize(
    ("in_force", "answer", "revision"),
    [
        pytest.param(None, pool(3), 3, id="the first plan ever is followed"),
        pytest.param(RUNNING, pool(6), 6, id="a later one replaces it"),
        pytest.param(RUNNING, pool(9), 9, id="revisions may be skipped"),
        pytest.param(RUNNING, pool(5), None, id="the same one again changes nothing"),
        pytest.param(RUNNING, pool(4), None, id="a stale answer does not bring an older plan back"),
        pytest.param(RUNNING, pool(1, "uid-2", LATE), 1, id="a pool created anew begins at its own revision 1"),
        pytest.param(
            PlanInForce("uid-2", 1, LATE),
            pool(7),
            None,
            id="a stale answer does not bring back a deleted pool's plan",
        ),
        pytest.param(RUNNING, pool(2, "uid-2", EARLY), 2, id="recreated within the same second counts as created anew"),
        pytest.param(RUNNING, {"metadata": {"uid": "uid-1"}}, None, id="no plan: the last good one stays"),
    ],
)
def test_plan_that_is_followed(in_force: PlanInForce | None, answer: dict[str, Any], revision: int | None) -> None:
    """None = the running one stays."""
    document = newer_plan(answer, in_force)
    assert (document.revision if document is not None else None) == revision


def test_plan_that_cannot_be_read_is_told() -> None:
    """The caller keeps the last good one."""
    broken = pool(6)
    broken["status"]["plan"]["method"] = "Magic"
    with pytest.raises(PlanError):
        newer_plan(broken, RUNNING)
