"""Apply: carry out a decision's actions, one after the other. Any of them may be the last before a crash."""

import logging

from t2i_operator.cluster.api import KubeApi
from t2i_operator.cluster.events import render_event
from t2i_operator.cluster.kinds import CHILD_KIND
from t2i_operator.deciding.actions import Action, Announce, Apply, Decision, Delete, LabelPod, WriteStatus
from t2i_operator.instants import Now
from t2i_operator.manifests import PoolRef
from t2i_operator.naming import LEVEL_LABEL

log = logging.getLogger(__name__)


async def apply(api: KubeApi, ref: PoolRef, decision: Decision, now: Now) -> str | None:
    """The resource version of the status that was written, None if none was.

    Raises:
        ApiError: see `errors`; what came before stays done.
        LeaseLost: we may not write.
    """
    version: str | None = None
    occasion = ""
    for action in decision.actions:
        if isinstance(action, WriteStatus):
            written = await api.apply_status(ref, action.status)
            version = written["metadata"].get("resourceVersion")
            occasion = version or ""
        else:
            await _carry_out(api, ref, action, (occasion, now))
    return version


async def _carry_out(api: KubeApi, ref: PoolRef, action: Action, when: tuple[str, Now]) -> None:
    match action:
        case Apply(manifest, reason, uid):
            name = manifest["metadata"]["name"]
            log.info("%s: apply %s %s (%s)", ref.key, manifest["kind"], name, reason)
            await api.apply(CHILD_KIND[manifest["kind"]], manifest, uid)
        case Delete(_, kind, name, uid, reason):
            log.info("%s: delete %s %s: %s", ref.key, kind, name, reason)
            await api.delete(kind, ref.namespace, name, uid)
        case LabelPod(name, uid, level):
            log.info("%s: %s stands at %s", ref.key, name, level)
            await api.label_pod(ref.namespace, name, uid, {LEVEL_LABEL: level})
        case Announce():
            await api.post_event(ref.namespace, render_event(ref, action, *when))
