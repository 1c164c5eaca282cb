"""`spec.provenance`: what image files say about how they were made."""

from typing import Annotated

from pydantic import Field

from t2i_api.part import Part


class ProvenancePart(Part):
    """What image files say about how they were made."""

    metadata: Annotated[bool, Field(strict=True)] = True
    """Image files say in their metadata (XMP) that a model made them: IPTC's digital source type, seed, model, level,
    pool and version. False: files hold pixels alone. Pixels are the same either way."""
    prompt: Annotated[bool, Field(strict=True)] = False
    """Whether metadata holds the prompt too, where a request does not say so itself: whoever gets the file reads it."""
