"""`spec.gateway.results`: where images are kept whose request asks for links to them."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from t2i_api.cache import Address
from t2i_api.part import Part
from t2i_api.security import SecretName

_STORE = r"^s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9](/[-A-Za-z0-9_.]+)*/?$"
_HTTP = r"^https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:[1-9][0-9]{0,4})?(/[-A-Za-z0-9_.~%]+)*/?$"
HTTPS_PORT, HTTP_PORT = 443, 80


class ResultsPart(Part):
    """A bucket where images are kept whose request asks for links (`response_format` of `url`)."""

    url: Annotated[Address, Field(pattern=_STORE)]
    """s3://BUCKET[/PREFIX]: the bucket, and what the names of images begin with."""
    endpoint: Annotated[Address, Field(pattern=rf"^$|{_HTTP}")] = ""
    """Where a server is that speaks S3: https://HOST[:PORT], or http:// in clear. Empty: Amazon's of the region."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=64)] = "us-east-1"
    """The bucket's region; servers other than Amazon's mostly do not care."""
    secret_name: SecretName = ""
    """Secret with the keys `access_key_id` and `secret_access_key`, and perhaps `session_token`. Empty: as
    the environment of the gateways says, such as by a role of their service account."""
    public_base_url: Annotated[Address, Field(pattern=rf"^$|{_HTTP}")] = ""
    """Links are this and the image's name, for buckets that a web server or a CDN shows. Empty: signed links to the
    bucket, each of which opens one image for a while."""
    link_seconds: Annotated[int, Field(ge=60, le=604_800, strict=True)] = 3600
    """How long signed links are good. The images themselves stay until the bucket's lifecycle rule removes them."""
    timeout_milliseconds: Annotated[int, Field(ge=100, le=60_000, strict=True)] = 10_000
    """How long keeping the images of a request may take, the wait for a turn included. Later it has failed."""

    @property
    def timeout_s(self) -> float:
        return self.timeout_milliseconds / 1e3

    @property
    def bucket(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def prefix(self) -> str:
        """Empty, or with a slash at its end."""
        path = urlsplit(self.url).path.strip("/")
        return f"{path}/" if path else ""

    @property
    def in_clear(self) -> bool:
        """Whether others on the way can read images."""
        return self.endpoint.startswith("http://")

    @property
    def port(self) -> int:
        return urlsplit(self.endpoint).port or (HTTP_PORT if self.in_clear else HTTPS_PORT)
