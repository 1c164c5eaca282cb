"""Where the API server keeps what we read and write."""

from dataclasses import dataclass
from urllib.parse import quote

from t2i_api.names import GROUP, KIND, PLURAL, VERSION


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """A resource: `prefix` is its API's path. Some clusters do not serve it, unless it is `everywhere_served`."""

    kind: str
    prefix: str
    plural: str
    everywhere_served: bool = True

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """The path of a namespace's collection, of an object, or of its subresource."""
        parts = [self.prefix, "namespaces", quote(namespace), self.plural]
        parts += [quote(name)] if name else []
        parts += [subresource] if subresource else []
        return "/".join(parts)

    @property
    def everywhere(self) -> str:
        """The path of the collection over all namespaces."""
        return f"{self.prefix}/{self.plural}"

    @property
    def api_version(self) -> str:
        """As in manifests."""
        return self.prefix.removeprefix("/apis/").removeprefix("/api/")

    @property
    def group(self) -> str:
        """Empty for the core API."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """Such as `v1`."""
        return self.api_version.rpartition("/")[2]


POOL = ResourceKind(KIND, f"/apis/{GROUP}/{VERSION}", PLURAL)
ENDPOINT_SLICE = ResourceKind("EndpointSlice", "/apis/discovery.k8s.io/v1", "endpointslices")
