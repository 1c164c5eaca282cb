"""What is known of one pool, and what an event tells that is not known. No I/O."""

from dataclasses import dataclass, field

from t2i_api.names import FIELD_MANAGER, KIND, MANAGED_BY_LABEL, POOL_LABEL
from t2i_operator.cluster.kinds import CHILD_KINDS, POD
from t2i_operator.manifests import Manifest, owning_pool

PROFILE = "profile"  # beside the kinds: the ConfigMap that `profileRef` names
OWNED_KINDS = (*CHILD_KINDS, POD)
OURS = f"{MANAGED_BY_LABEL}={FIELD_MANAGER}"


@dataclass(frozen=True, slots=True)
class Heard:
    """An event of a watch: which object in which version, or that it is gone; `listed` = the watch begins with it."""

    kind: str
    name: str
    uid: str
    version: str
    gone: bool = False
    listed: bool = False


@dataclass(slots=True)
class PoolMemory:
    """The pool's document, the objects that carry its label by kind and name, and what is to be read again: kinds in
    `stale` for certain, kinds in `news` unless an answer that came since has it already. `writes` counts ours.
    `answered` holds by UID the generation in which the API server answered to what we applied last.
    """

    document: Manifest | None = None
    profile: Manifest | None = None
    objects: dict[str, dict[str, Manifest]] = field(default_factory=dict)
    stale: set[str] = field(default_factory=lambda: {KIND, PROFILE, POD.kind})
    news: dict[tuple[str, str], Heard] = field(default_factory=dict)
    writes: int = 0
    answered: dict[str, int] = field(default_factory=dict)

    def find(self, kind: str, name: str) -> Manifest | None:
        """An object, None if it is not known."""
        return self.document if kind == KIND else self.objects.get(kind, {}).get(name)

    def knows(self, heard: Heard) -> bool:
        """True if the event tells nothing new."""
        known = self.find(heard.kind, heard.name)
        if heard.gone:
            return known is None or known["metadata"]["uid"] != heard.uid
        return known is not None and known["metadata"]["uid"] == heard.uid and not is_newer(heard.version, known)

    def is_as_answered(self, item: Manifest) -> bool:
        """True if its spec is what the API server made of the one that we applied last."""
        generation = item["metadata"].get("generation")
        return generation is not None and self.answered.get(item["metadata"]["uid"]) == generation

    def to_read(self) -> set[str]:
        """Kinds that must be read before anything is decided."""
        return self.stale | {heard.kind for heard in self.news.values() if not self.knows(heard)}

    def versions(self) -> dict[str, str]:
        """Resource version by UID, of everything that is known of the pool."""
        items = [item for kind in self.objects.values() for item in kind.values()]
        every = [*items, *([self.document] if self.document is not None else [])]
        return {item["metadata"]["uid"]: str(item["metadata"].get("resourceVersion", "")) for item in every}

    def listed(self, kind: str) -> tuple[Manifest, ...]:
        """All objects of a kind."""
        return tuple(self.objects.get(kind, {}).values())


def is_newer(version: str, known: Manifest) -> bool:
    """Resource versions of one cluster are numbers that rise; others can only be told apart."""
    have = str(known["metadata"].get("resourceVersion", ""))
    return int(version) > int(have) if version.isdigit() and have.isdigit() else version != have


def is_relabelled(before: Manifest | None, after: Manifest) -> bool:
    """True if nothing differs but labels."""
    if before is None:
        return False
    ours = ("labels", "resourceVersion")
    was, now = ({name: value for name, value in one["metadata"].items() if name not in ours} for one in (before, after))
    return was == now and all(before.get(part) == after.get(part) for part in ("spec", "status"))


def slim(kind: str, item: Manifest) -> Manifest:
    """Without what nobody here reads: who manages which field, and of a pod's spec all but names and ports."""
    metadata = {name: value for name, value in item["metadata"].items() if name != "managedFields"}
    kept = {**item, "metadata": metadata}
    if kind == POD.kind:
        containers = item.get("spec", {}).get("containers", ())
        kept["spec"] = {"containers": [{"name": one["name"], "ports": one.get("ports", [])} for one in containers]}
    return kept


def profile_name(document: Manifest | None) -> str | None:
    """The ConfigMap that a pool names."""
    name = (((document or {}).get("spec") or {}).get("profileRef") or {}).get("name")
    return None if name is None else str(name)


def key_of_pool(document: Manifest) -> str:
    """As in queues and logs."""
    return f"{document['metadata']['namespace']}/{document['metadata']['name']}"


def owner_key(item: Manifest) -> str | None:
    """The pool that an object belongs to: by its owner, else by its label."""
    metadata = item["metadata"]
    pool = owning_pool(metadata) or (metadata.get("labels") or {}).get(POOL_LABEL)
    return f"{metadata['namespace']}/{pool}" if pool else None


def is_labelled(key: str, item: Manifest) -> bool:
    """True if lists and watches of this pool's objects show it."""
    labels = item["metadata"].get("labels") or {}
    return labels.get(MANAGED_BY_LABEL) == FIELD_MANAGER and labels.get(POOL_LABEL) == key.partition("/")[2]
