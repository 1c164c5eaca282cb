"""Which judge's scores a profile's losses are made of. Losses of two judges are never compared nor added."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class JudgeRecord:
    """`kind` names the method, `digest` its weights and settings. `source` is the address that it came from.

    `num_images`: scored ones, exact ones among them. `standard_error`: the largest of any level's mean loss over all
    prompts, as a fraction of exact; both 0 where nothing is known.
    """

    kind: str
    source: str
    digest: str
    compares: bool = False
    num_images: int = 0
    standard_error: float = 0.0

    def same_as(self, other: "JudgeRecord") -> bool:
        """Whether losses of both may stand side by side. Where it came from does not matter, what it is does."""
        return (self.kind, self.digest) == (other.kind, other.digest)

    def measured(self, num_images: int, standard_error: float) -> "JudgeRecord":
        """The record of what it scored."""
        return replace(self, num_images=num_images, standard_error=standard_error)

    @property
    def phrase(self) -> str:
        """For people."""
        return f"{self.kind} ({self.digest[:12]})" if self.digest else self.kind


def other_judge(records: Iterable[JudgeRecord | None]) -> str:
    """In words, two judges among these that are not the same; empty: all are. None = a profile of before, unknown."""
    known = [one for one in records if one is not None]
    for one in known[1:]:
        if not one.same_as(known[0]):
            return f"{known[0].phrase} and {one.phrase}"
    return ""


def parse_judge(section: Mapping[str, Any]) -> JudgeRecord:
    """Raises:
    KeyError, TypeError, ValueError: a field is missing or of the wrong kind.
    """
    return JudgeRecord(
        kind=str(section["kind"]),
        source=str(section.get("source", "")),
        digest=str(section.get("digest", "")),
        compares=bool(section.get("comparesWithExact", False)),
        num_images=int(section.get("images", 0)),
        standard_error=float(section.get("standardError", 0.0)),
    )


def render_judge(record: JudgeRecord) -> dict[str, Any]:
    """As in the profile's JSON."""
    return {
        "kind": record.kind,
        "source": record.source,
        "digest": record.digest,
        "comparesWithExact": record.compares,
        "images": record.num_images,
        "standardError": record.standard_error,
    }
