"""`spec.provenance`: what image files say about how they were made."""

from typing import Annotated

from pydantic import Field

from t2i_api.part import Part
from t2i_api.security import SecretName


class C2paPart(Part):
    """A certificate that every image file is signed with by C2PA, as Content Credentials."""

    secret_name: Annotated[SecretName, Field(min_length=1)]
    """Secret (kubernetes.io/tls) whose tls.crt is the certificate, with those that lead to its authority after it, and
    whose tls.key is its key. Changed contents are taken up without a restart."""


class ProvenancePart(Part):
    """What image files say about how they were made."""

    metadata: Annotated[bool, Field(strict=True)] = True
    """Image files say in their metadata (XMP) that a model made them: IPTC's digital source type, seed, model, level,
    pool and version. False: files hold pixels alone. Pixels are the same either way."""
    prompt: Annotated[bool, Field(strict=True)] = False
    """Whether metadata holds the prompt too, where a request does not say so itself: whoever gets the file reads it."""
    c2pa: Annotated[C2paPart | None, Field(alias="c2pa")] = None  # pydantic would make c2Pa of it
    """Sign image files by C2PA: who made them can be checked, and any change of them is seen. What cannot be signed is
    not sent. Left out: nothing is signed."""
