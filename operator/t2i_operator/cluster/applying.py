"""Apply: carry out a decision's actions. Any of them may be the last before a crash.

Children are written in two waves, the parts of a wave together: what others refer to first, then what runs pods. The
rest comes one after the other. What fails does not keep the rest of its wave from being written.

The API server's answers are remembered, so nothing that we wrote ourselves is read again.
"""

import asyncio
import logging
from collections.abc import Sequence

from t2i_api.names import KIND, LEVEL_LABEL
from t2i_operator.cluster.api import KubeApi
from t2i_operator.cluster.events import render_event
from t2i_operator.cluster.kinds import CHILD_KIND, POD
from t2i_operator.cluster.remembering import Memory
from t2i_operator.deciding.actions import Action, Announce, Apply, Delete, LabelPod, WriteStatus
from t2i_operator.errors import WriteRefused
from t2i_operator.instants import Now
from t2i_operator.manifests import PoolRef

log = logging.getLogger(__name__)
WORKLOADS = ("StatefulSet", "Deployment")


async def apply(api: KubeApi, memory: Memory, ref: PoolRef, actions: Sequence[Action], now: Now) -> str | None:
    """The resource version of the status that was written, None if none was.

    Raises:
        ApiError: see `errors`; what came before stays done.
        LeaseLost: we may not write.
    """
    version: str | None = None
    for action in actions:
        if isinstance(action, WriteStatus):
            written = await api.apply_status(ref, action.status)
            memory.keep(ref.key, KIND, written)
            version = written["metadata"].get("resourceVersion")
        elif isinstance(action, Announce):
            await _announce(api, ref, action, (version or "", now))
        else:
            await _write(api, memory, ref, action)
    return version


async def apply_children(api: KubeApi, memory: Memory, ref: PoolRef, actions: Sequence[Apply | Delete]) -> None:
    """Write and delete children.

    Raises:
        ApiError: the first that was met; see `errors`.
        LeaseLost: we may not write.
    """
    for wave in (False, True):
        parts = [action for action in actions if _is_last(action) == wave]
        done = await asyncio.gather(*(_write(api, memory, ref, part) for part in parts), return_exceptions=True)
        for failure in done:
            if failure is not None:
                raise failure


def _is_last(action: Apply | Delete) -> bool:
    """Workloads refer to everything else; what is not wanted any more goes after what replaces it is there."""
    return isinstance(action, Delete) or action.manifest["kind"] in WORKLOADS


async def _announce(api: KubeApi, ref: PoolRef, announce: Announce, when: tuple[str, Now]) -> None:
    """An event that may not be written (no permission, a namespace that ends) must not stop anything."""
    try:
        await api.post_event(ref.namespace, render_event(ref, announce, *when))
    except WriteRefused as error:
        log.warning("%s: event %s: %s", ref.key, announce.reason, error)


async def _write(api: KubeApi, memory: Memory, ref: PoolRef, action: Apply | Delete | LabelPod) -> None:
    match action:
        case Apply(manifest, reason, uid):
            kind = manifest["kind"]
            log.debug("%s: apply %s %s (%s)", ref.key, kind, manifest["metadata"]["name"], reason)
            memory.keep_applied(ref.key, kind, await api.apply(CHILD_KIND[kind], manifest, uid))
        case Delete(_, kind, name, uid, reason):
            log.debug("%s: delete %s %s: %s", ref.key, kind, name, reason)
            await api.delete(kind, ref.namespace, name, uid)
            memory.drop(ref.key, kind, name)
        case LabelPod(name, uid, level):
            log.debug("%s: %s stands at %s", ref.key, name, level)
            labelled = await api.label_pod(ref.namespace, name, uid, {LEVEL_LABEL: level})
            if labelled is not None:
                memory.keep(ref.key, POD.kind, labelled)
