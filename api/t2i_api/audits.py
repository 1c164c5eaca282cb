"""`spec.quality`: whether the pool audits the quality that it promises."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from t2i_api.cache import Address
from t2i_api.part import Part
from t2i_api.safety import HTTP_ADDRESS
from t2i_api.template import AuditorTemplatePart

SCENES = "scenes"  # the judge of the embedded model
_NETWORK = r"(pickscore|clipscore|aesthetic|hps|lpips|dists)(=(hf|file|pvc)://.+)?"
JUDGE_PATTERN = rf"^({SCENES}|{_NETWORK}|{HTTP_ADDRESS})$"
JUDGE_IN_WORDS = (
    f"must be {SCENES}; pickscore, clipscore, aesthetic, hps, lpips or dists, alone or as KIND=hf://..., "
    "KIND=file://... or KIND=pvc://...; or the address of a service, http(s)://HOST..."
)


class AuditsPart(Part):
    """Audits: for a sample of approximated images the exact image is drawn too, when the pool has room. A judge scores
    both. Left out: nothing is audited."""

    judge: Annotated[Address, Field(pattern=JUDGE_PATTERN)]
    """Who scores images: scenes for the embedded model; pickscore, clipscore, aesthetic, hps, lpips or dists, alone or
    with =hf://..., =file://... or =pvc://... for weights of your own; or the address of a service of yours. It must be
    the judge of the profile, as losses of two judges do not compare."""
    audit_per_mille: Annotated[int, Field(ge=1, le=1000, strict=True)] = 20
    """Of 1000 approximated images so many are audited, as far as the pool has room for their exact runs."""
    recalibrate: Annotated[bool, Field(strict=True)] = False
    """True: the losses that levels are chosen by move towards what audits measure. False: it is told, no more."""
    template: AuditorTemplatePart = AuditorTemplatePart()
    """Overrides of the auditor's pod template: resources, nodeSelector, env and more. Local mode ignores it."""

    @property
    def judge_kind(self) -> str:
        """How profiles call it; empty for a service of the owner's, which says so itself."""
        return "" if self.is_service else self.judge.partition("=")[0]

    @property
    def judge_source(self) -> str:
        """The address of its weights; empty for the published ones, the embedded judge and services."""
        return "" if self.is_service else self.judge.partition("=")[2]

    @property
    def is_service(self) -> bool:
        """Whether it is asked over HTTP."""
        return self.judge.startswith(("http://", "https://"))

    @property
    def service_port(self) -> int:
        """Of a service."""
        parts = urlsplit(self.judge)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def audited_share(self) -> float:
        return self.audit_per_mille / 1000
