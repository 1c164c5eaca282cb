"""`spec.quality`: whether the pool audits the quality that it promises."""

from typing import Annotated

from pydantic import Field

from t2i_api.cache import Address
from t2i_api.part import Part


class AuditsPart(Part):
    """Audits: of a sample of approximated images the exact image is drawn too, when the pool has room, and a judge
    scores both. Left out: nothing is audited."""

    judge: Annotated[
        Address, Field(pattern=r"^(scenes|(pickscore|clipscore|aesthetic|hps|lpips|dists)(=.+)?|https?://.+)$")
    ]
    """Who scores images: scenes for the embedded model; pickscore, clipscore, aesthetic, hps, lpips or dists, alone or
    with =hf://..., =file://... or =pvc://... for weights of your own; or the address of a service of yours. It must be
    the judge of the profile, as losses of two judges do not compare."""
    audit_per_mille: Annotated[int, Field(ge=1, le=1000, strict=True)] = 20
    """Of 1000 approximated images so many are audited, as far as the pool has room for their exact runs."""
    recalibrate: Annotated[bool, Field(strict=True)] = False
    """True: the losses that levels are chosen by move towards what audits measure. False: it is told, no more."""

    @property
    def audited_share(self) -> float:
        return self.audit_per_mille / 1000
