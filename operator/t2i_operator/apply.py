"""Apply: carry out a decision's actions. Any of them may be the last before a crash.

Children are written in two waves, the parts of a wave together: what others refer to first, then what runs pods. The
rest comes one after the other: the status, the labels that follow its plan, then events. What fails does not keep the
rest of its wave from being written.

The API server's answers go into the mirror.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from t2i_api.names import API_VERSION, FIELD_MANAGER, KIND, LEVEL_LABEL
from t2i_operator.api import KubeApi
from t2i_operator.clock import Instant
from t2i_operator.decide.children import key_of
from t2i_operator.decide.types import Action, Announce, Apply, Delete, LabelPod, WriteStatus
from t2i_operator.errors import WriteRefused
from t2i_operator.kinds import CHILD_KIND, POD, POOL
from t2i_operator.manifests.child import Manifest, PoolRef, digest
from t2i_operator.mirror import Mirror

log = logging.getLogger(__name__)
LAST_KINDS = ("StatefulSet", "Deployment", "RoleBinding")  # they refer to others; a binding needs its role
MAX_MESSAGE = 1024  # the API server's limit
NAMED = 3  # names in a line of the log


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes for one look at a pool. `on_written` is called after every write that succeeded."""

    api: KubeApi
    mirror: Mirror
    ref: PoolRef
    on_written: Callable[[], None]

    async def write_children(self, actions: Sequence[Apply | Delete]) -> None:
        """Write and delete children.

        Raises:
            ApiError: the first that was met; see `errors`. What succeeded stays done.
            LeaseLost: we may not write.
        """
        for last in (False, True):
            wave = [action for action in actions if _is_last(action) == last]
            done = await asyncio.gather(*(self._write_child(one) for one in wave), return_exceptions=True)
            for failure in done:
                if failure is not None:
                    raise failure

    async def write_rest(self, actions: Sequence[Action], now: Instant) -> bool:
        """Status, labels and events. True if an answer tells of more than what we wrote.

        Raises:
            ApiError: see `errors`; what came before stays done.
            LeaseLost: we may not write.
        """
        occasion, told_more = "", False
        for action in actions:
            match action:
                case WriteStatus(status):
                    written = await self.api.apply_status(self.ref, status)
                    self.mirror.wrote(POOL, written)
                    occasion = written["metadata"].get("resourceVersion", "")
                case LabelPod():
                    told_more |= await self._label(action)
                case Announce():
                    await self._announce(action, occasion, now)
            self.on_written()
        return told_more

    async def _write_child(self, action: Apply | Delete) -> None:
        match action:
            case Apply(manifest, reason, uid):
                kind = CHILD_KIND[manifest["kind"]]
                log.debug("%s: apply %s %s (%s)", self.ref.key, kind.kind, manifest["metadata"]["name"], reason)
                self.mirror.applied(kind, await self.api.apply(kind, manifest, uid))
            case Delete(kind_name, name, uid):
                log.debug("%s: delete %s %s", self.ref.key, kind_name, name)
                await self.api.delete(kind_name, self.ref.namespace, name, uid)
                self.mirror.deleted(CHILD_KIND[kind_name], self.ref.namespace, name, uid)
        self.on_written()

    async def _label(self, action: LabelPod) -> bool:
        """The kubelet may have written in the same moment. Then the answer holds both writes, and the event of the
        kubelet's comes too late to be news. Only we know that nobody has looked at it.
        """
        log.debug("%s: %s stands at %s", self.ref.key, action.name, action.level)
        before = self.mirror.find(POD, self.ref.namespace, action.name)
        labelled = await self.api.label_pod(self.ref.namespace, action.name, action.uid, {LEVEL_LABEL: action.level})
        if labelled is None:
            return False
        self.mirror.wrote(POD, labelled)
        return not _is_relabelled(before, self.mirror.find(POD, self.ref.namespace, action.name))

    async def _announce(self, announce: Announce, occasion: str, now: Instant) -> None:
        """An event that may not be written (no permission, a namespace that ends) must not stop anything."""
        try:
            await self.api.post_event(self.ref.namespace, render_event(self.ref, announce, occasion, now))
        except WriteRefused as error:
            log.warning("%s: event %s: %s", self.ref.key, announce.reason, error)


def _is_last(action: Apply | Delete) -> bool:
    """What is not needed any more goes after what replaces it is there."""
    return isinstance(action, Delete) or action.manifest["kind"] in LAST_KINDS


def _is_relabelled(before: Manifest | None, after: Manifest | None) -> bool:
    """True if nothing differs but labels."""
    if before is None or after is None:
        return False
    ours = ("labels", "resourceVersion")
    was, now = ({name: value for name, value in one["metadata"].items() if name not in ours} for one in (before, after))
    return was == now and all(before.get(part) == after.get(part) for part in ("spec", "status"))


def render_event(ref: PoolRef, announce: Announce, occasion: str, now: Instant) -> Manifest:
    """An event on a pool, for `kubectl describe`. Its name follows from its content: saying it twice is saying it once.

    `occasion` tells two events of the same words apart, e.g. by the status they came with."""
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


def summarize(actions: Sequence[Action]) -> str:
    """What a look changed, in a line for the log."""
    applied = ["/".join(key_of(one.manifest)) for one in actions if isinstance(one, Apply)]
    deleted = [f"{one.kind}/{one.name}" for one in actions if isinstance(one, Delete)]
    labels = [f"{one.name} at {one.level}" for one in actions if isinstance(one, LabelPod)]
    status = next((one.status for one in actions if isinstance(one, WriteStatus)), None)
    parts = [f"{verb} {_names(names)}" for verb, names in (("wrote", applied), ("deleted", deleted)) if names]
    if status is not None:
        ready = next(one for one in status["conditions"] if one["type"] == "Ready")
        plan = f", plan {status['plan']['revision']} ({status['mix']})" if "plan" in status else ""
        parts.append(f"Ready={ready['status']} ({ready['reason']}){plan}")
    return "; ".join([*parts, *([f"labelled {_names(labels)}"] if labels else [])])


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} children or pods"
