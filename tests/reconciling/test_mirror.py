"""The mirror without an API server: which version of an object stays, what is news, and for whom."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_operator.kinds import CHILD_KIND, CONFIG_MAP, POD, POOL
from t2i_operator.mirror import FOR_EVER, Mirror, Place, slim
from t2i_operator.sharing import SharedValues

SERVICE = CHILD_KIND["Service"]
KEY = "ns/p"
Document = dict[str, Any]
Step = Callable[[Mirror], object]


def service(version: str, uid: str = "u1", pool: str | None = "p", managed: bool = True) -> Document:
    """A Service with our labels, if it still has them."""
    labels = {"t2iserving.dev/pool": pool} if pool else {}
    labels |= {"app.kubernetes.io/managed-by": "t2i-operator"} if managed else {}
    metadata = {"name": "s", "namespace": "ns", "uid": uid, "resourceVersion": version, "labels": labels}
    return {"metadata": metadata, "spec": {"version": version}}


def pool(version: str, name: str = "p", profile: str | None = None) -> Document:
    """A pool, measured by a ConfigMap if named."""
    spec = {"profileRef": {"name": profile}} if profile else {}
    return {"metadata": {"name": name, "namespace": "ns", "uid": f"u-{name}", "resourceVersion": version}, "spec": spec}


def profile(version: str) -> Document:
    """A ConfigMap without our labels."""
    return {"metadata": {"name": "measured", "namespace": "ns", "uid": "u-m", "resourceVersion": version}, "data": {}}


def heard(version: str, deleted: bool = False, **other: Any) -> Step:
    """An event of a watch."""
    return lambda mirror: mirror.hear(SERVICE, service(version, **other), deleted)


def wrote(version: str) -> Step:
    """The answer to a write of ours."""
    return lambda mirror: mirror.wrote(SERVICE, service(version))


def listed(*uids: str, version: int) -> Step:
    """A full list."""
    return lambda mirror: mirror.keep_listed(mirror.places(SERVICE.kind), set(uids), version)


def ours_deleted(mirror: Mirror) -> None:
    """Our own deletion."""
    mirror.deleted(SERVICE, "ns", "s", "u1")


#: What came before, what comes now, who should look, and the version that is held then.
NEWEST_WINS: dict[str, tuple[list[Step], Step, set[str], str | None]] = {
    "an object that is not known": ([], heard("5"), {KEY}, "5"),
    "the echo of our own write": ([wrote("5")], heard("5"), set(), "5"),
    "an event from before our write": ([wrote("5")], heard("4"), set(), "5"),
    "an answer from before an event": ([heard("6")], wrote("5"), None, "6"),
    "a later change": ([wrote("5")], heard("6"), {KEY}, "6"),
    "nine is older than ten": ([wrote("10")], heard("9"), set(), "10"),
    "another object of the same name": ([heard("5")], heard("7", uid="u2"), {KEY}, "7"),
    "the object that another has replaced": ([heard("7", uid="u2")], heard("5"), set(), "7"),
    "a version that is no number": ([heard("5")], heard("abc"), {KEY}, "abc"),
    "the same version that is no number": ([heard("abc")], heard("abc"), set(), "abc"),
    "a deletion": ([heard("5")], heard("6", deleted=True), {KEY}, None),
    "the deletion of the one before": ([heard("7", uid="u2")], heard("6", deleted=True), set(), "7"),
    "a deletion out of the past": ([heard("5")], heard("4", deleted=True), set(), "5"),
    "the deletion of what we deleted": ([heard("5"), ours_deleted], heard("6", deleted=True), set(), None),
    "an event from before our deletion": ([heard("5"), ours_deleted], heard("6"), set(), None),
    "an answer from before its deletion": ([heard("5"), heard("7", deleted=True)], heard("6"), set(), None),
    "one that comes back into the watch": ([heard("5"), heard("7", deleted=True)], heard("8"), {KEY}, "8"),
    "a list without it": ([heard("5")], listed(version=6), {KEY}, None),
    "a list without it, from before it was made": ([heard("5")], listed(version=4), set(), "5"),
    "a list with it": ([heard("5")], listed("u1", version=6), set(), "5"),
    "its owner's mark taken away": ([heard("5")], heard("6", pool=None), {KEY}, None),
    "our label taken away": ([heard("5")], heard("6", managed=False), {KEY}, None),
    "given to another pool": ([heard("5")], heard("6", pool="q"), {KEY, "ns/q"}, "6"),
    "a stranger's": ([], heard("5", managed=False), set(), None),
}


@pytest.mark.parametrize(("before", "now", "told", "version"), NEWEST_WINS.values(), ids=NEWEST_WINS.keys())
def test_newest_version_stays_whoever_brings_it(
    before: list[Step], now: Step, told: set[str] | None, version: str | None
) -> None:
    """Only what is new makes somebody look."""
    mirror = Mirror()
    for step in before:
        step(mirror)
    assert now(mirror) == told
    held = mirror.find(SERVICE, "ns", "s")
    assert (held["metadata"]["resourceVersion"] if held is not None else None) == version


def test_what_belongs_to_a_pool_follows_its_marks() -> None:
    """By the owner reference if there is one, else by the label."""
    mirror = Mirror()
    mirror.take(SERVICE, service("5"))
    assert [one["metadata"]["uid"] for one in mirror.belongings(KEY, SERVICE)] == ["u1"]
    owned = service("6")
    owned["metadata"]["ownerReferences"] = [
        {"apiVersion": "t2iserving.dev/v1alpha1", "kind": "T2IServingPool", "name": "q", "uid": "u-q"}
    ]
    assert mirror.take(SERVICE, owned) == {KEY, "ns/q"}
    assert mirror.belongings(KEY, SERVICE) == []
    assert mirror.places(key="ns/q") == [Place("Service", "ns", "s")]


def test_profile_is_held_while_a_pool_names_it() -> None:
    """It carries no label of ours; its changes and its end are news for the pools that it measures."""
    mirror = Mirror()
    assert mirror.hear(CONFIG_MAP, profile("1")) == set()
    mirror.take(POOL, pool("2", profile="measured"))
    mirror.take(POOL, pool("2", name="q"))
    assert mirror.hear(CONFIG_MAP, profile("3")) == {KEY}
    assert mirror.find(CONFIG_MAP, "ns", "measured") is not None
    assert mirror.profiles() == [Place("ConfigMap", "ns", "measured")]
    assert mirror.places(CONFIG_MAP.kind) == []
    assert mirror.hear(CONFIG_MAP, profile("4"), deleted=True) == {KEY}
    assert mirror.profiles() == []


def test_pool_that_lives_in_the_past_can_be_forgotten() -> None:
    """An API server was restored from a backup: after that its versions are believed again."""
    mirror = Mirror()
    mirror.take(POOL, pool("50"))
    mirror.take(SERVICE, service("60"))
    assert mirror.take(SERVICE, service("6")) == set()
    mirror.forget(KEY)
    assert mirror.pool(KEY) is None
    assert mirror.take(SERVICE, service("6")) == {KEY}
    assert mirror.take(POOL, pool("5")) == {KEY}


def test_what_the_api_server_made_of_our_manifest_is_known_until_it_changes() -> None:
    """By its generation; a full list keeps it, the object's end does not."""
    mirror = Mirror()
    answer = service("5")
    answer["metadata"]["generation"] = 3
    mirror.applied(SERVICE, answer)
    mirror.listed_all()
    assert mirror.is_as_applied(answer)
    assert not mirror.is_as_applied({"metadata": {**answer["metadata"], "generation": 4}})
    mirror.drop(SERVICE, answer)
    mirror.listed_all()
    assert not mirror.is_as_applied(answer)


ECHOES: dict[str, tuple[list[Step], float]] = {
    "nothing written": ([], 0.0),
    "not heard of": ([lambda m: m.wrote(POOL, pool("7"))], 90.0),
    "heard of in that version": ([lambda m: m.wrote(POOL, pool("7")), lambda m: m.hear(POOL, pool("7"))], 0.0),
    "heard of in a later version": ([lambda m: m.wrote(POOL, pool("7")), lambda m: m.hear(POOL, pool("8"))], 0.0),
    "heard of in an earlier version only": (
        [lambda m: m.wrote(POOL, pool("7")), lambda m: m.hear(POOL, pool("6"))],
        90.0,
    ),
    "heard of before the answer to the write came": (
        [lambda m: m.hear(POOL, pool("7")), lambda m: m.wrote(POOL, pool("7"))],
        0.0,
    ),
    "found by a list alone": ([lambda m: m.wrote(POOL, pool("7")), lambda m: m.take(POOL, pool("8"))], 90.0),
    "versions that are no numbers count as heard": (
        [lambda m: m.wrote(POOL, pool("x")), lambda m: m.hear(POOL, pool("y"))],
        0.0,
    ),
    "another pool's event says nothing": (
        [lambda m: m.wrote(POOL, pool("7")), lambda m: m.hear(POOL, pool("9", name="q"))],
        90.0,
    ),
    "a pool that is gone owes nothing": (
        [lambda m: m.wrote(POOL, pool("7")), lambda m: m.hear(POOL, pool("8"), True)],
        0.0,
    ),
}


@pytest.mark.parametrize(("steps", "unheard_s"), ECHOES.values(), ids=ECHOES.keys())
def test_how_long_a_write_has_not_come_back(steps: list[Step], unheard_s: float) -> None:
    """Written at 10 s, asked at 100 s."""
    now_s = 10.0
    mirror = Mirror(lambda: now_s)
    for step in steps:
        step(mirror)
    now_s = 100.0
    assert mirror.unheard_s() == unheard_s


def test_written_twice_the_older_write_counts() -> None:
    """A dead watch is not excused by our writing on."""
    now_s = 10.0
    mirror = Mirror(lambda: now_s)
    mirror.wrote(POOL, pool("7"))
    now_s = 50.0
    mirror.wrote(POOL, pool("9"))
    now_s = 100.0
    assert mirror.unheard_s() == 90.0
    mirror.hear(POOL, pool("8"))
    assert mirror.unheard_s() == 90.0
    mirror.hear(POOL, pool("9"))
    assert mirror.unheard_s() == 0.0


def test_what_nobody_reads_is_not_kept() -> None:
    """Memory follows the number of pools: managed fields, and most of a pod."""
    kept = {"name": "s", "uid": "u1", "resourceVersion": "5"}
    assert slim(SERVICE, {"metadata": {**kept, "managedFields": [1]}, "spec": {"x": 1}}) == {
        "metadata": kept,
        "spec": {"x": 1},
    }
    container = {"name": "worker", "image": "w", "env": [1], "ports": [{"containerPort": 1}]}
    pod = {
        "metadata": {"name": "p"},
        "spec": {"containers": [container], "volumes": []},
        "status": {"phase": "Running"},
    }
    assert slim(POD, pod)["spec"] == {"containers": [{"name": "worker", "ports": [{"containerPort": 1}]}]}


def test_list_without_a_version_is_believed() -> None:
    """Nothing can be compared with it."""
    mirror = Mirror()
    mirror.take(SERVICE, service("abc"))
    assert mirror.keep_listed(mirror.places(), set(), FOR_EVER) == {KEY}


def test_parts_of_like_objects_are_kept_once() -> None:
    """Thousands of children say the same. What is their own stays, and so does what we were handed."""
    mirror = Mirror()
    spec = {"ports": [{"port": 1, "name": "".join(("gr", "pc"))}], "paused": True, "replicas": 1}
    handed = [{**service("1", name), "spec": {**copy.deepcopy(spec), "owner": name}} for name in "ab"]
    for name, item in zip("ab", handed, strict=True):
        item["metadata"]["name"] = name
        mirror.take(SERVICE, item)
        item["spec"]["ports"][0]["port"] = 2
    one, other = (mirror.find(SERVICE, "ns", name) for name in "ab")
    assert one is not None
    assert other is not None
    assert one["spec"] == {**spec, "owner": "a"}
    assert other["spec"] == {**spec, "owner": "b"}
    assert one["spec"]["ports"] is other["spec"]["ports"]
    assert one["metadata"]["labels"] is other["metadata"]["labels"]


JSON = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, 1, 1.0]) | st.text("ab", max_size=2),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text("ab", max_size=1), part, max_size=3),
)


@given(st.lists(JSON, max_size=8), st.integers(1, 4))
def test_shared_value_says_the_same_to_the_letter(values: list[Any], most: int) -> None:
    """1 is neither true nor 1.0, keys keep their order, and what was forgotten is only kept twice."""
    parts = SharedValues(most)
    shared = [parts.share(copy.deepcopy(value)) for value in values]
    assert [json.dumps(one) for one in shared] == [json.dumps(one) for one in values]
