"""Events on a pool, for `kubectl describe`. The name follows from the content, so saying it twice is saying it once."""

from t2i_api.names import API_VERSION, FIELD_MANAGER, KIND
from t2i_operator.clock import Instant
from t2i_operator.decide.actions import Announce
from t2i_operator.manifests.child import Manifest, PoolRef, digest

MAX_MESSAGE = 1024  # the API server's limit


def render_event(ref: PoolRef, announce: Announce, occasion: str, now: Instant) -> Manifest:
    """`occasion` tells two events of the same words apart, e.g. by the status they came with."""
    mark = digest([ref.uid, announce.reason, announce.message, occasion])
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{ref.name}.{mark}", "namespace": ref.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": ref.name,
            "namespace": ref.namespace,
            "uid": ref.uid,
        },
        "type": "Warning" if announce.warning else "Normal",
        "reason": announce.reason,
        "message": announce.message[:MAX_MESSAGE],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": now.text,
        "lastTimestamp": now.text,
        "count": 1,
    }
