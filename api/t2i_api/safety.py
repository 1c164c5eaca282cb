"""`spec.safety`: classifiers of the owner's that say which prompts and images a pool may serve."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from t2i_api.cache import Address
from t2i_api.part import Part
from t2i_api.security import SecretName

_PORT = "6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}"
HTTP_ADDRESS = rf"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:({_PORT}))?([/?][!-~]*)?"


class SafetyCheckPart(Part):
    """An HTTP endpoint that is asked, by POST with JSON, whether a prompt or an image is allowed."""

    url: Annotated[Address, Field(pattern=rf"^{HTTP_ADDRESS}$")]
    """Where it is: https://HOST[:PORT][/PATH], or http:// in clear. No user or password: see secretName."""
    timeout_milliseconds: Annotated[int, Field(ge=1, le=60_000, strict=True)] = 5000
    """How long an answer may take, the wait for a turn included. A request's own deadline counts too."""
    max_concurrent: Annotated[int, Field(ge=1, le=1024, strict=True)] = 32
    """Questions that one gateway asks at the same time; further ones wait their turn."""
    fail_open: Annotated[bool, Field(strict=True)] = False
    """True: what cannot be checked is served. False: it is refused as UNAVAILABLE, and may be tried again."""
    secret_name: SecretName = ""
    """Secret with any of these keys: `token`, sent as a bearer token; `ca.crt`, what the endpoint's certificate is
    checked against in place of public authorities; `tls.crt` and `tls.key`, the certificate shown to the endpoint."""

    @property
    def timeout_s(self) -> float:
        return self.timeout_milliseconds / 1e3

    @property
    def in_clear(self) -> bool:
        """Whether others on the way can read what is asked."""
        return self.url.startswith("http://")

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or (80 if self.in_clear else 443)


class SafetyPart(Part):
    """Classifiers of the owner's that say which prompts and images the pool may serve."""

    prompt: SafetyCheckPart | None = None
    """Asked about every prompt before anything is done with it. Left out: prompts are not checked."""
    image: SafetyCheckPart | None = None
    """Asked about every finished image before a byte of it is sent. Previews are not sent then. Left out: images are
    not checked."""

    @property
    def checks(self) -> dict[str, SafetyCheckPart]:
        """Those that are set, by place."""
        places = {"prompt": self.prompt, "image": self.image}
        return {place: part for place, part in places.items() if part is not None}
