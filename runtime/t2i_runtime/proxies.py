"""Which connections may go through a proxy of the environment (`http_proxy`, `https_proxy`, `all_proxy`).

Never: gateway to worker, operator to gateway, a pod to its own API server, anything on this machine. A proxy is the way
out of a site; it knows neither pod addresses nor loopback. By the environment, `no_proxy` included: downloads from a
hub, a gateway that a user named, an API server of a kubeconfig.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

PROXY_VARIABLES = frozenset({"http_proxy", "https_proxy", "all_proxy"})


def is_this_machine(host: str) -> bool:
    """True for loopback, and for the unspecified address that a server of this machine listens on."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def asks_environment(url: str, environment: Mapping[str, str]) -> bool:
    """True if a client of this URL should take its proxy from the environment.

    Without a proxy there it should not: it would read ~/.netrc at every call, for nothing.
    """
    named = any(name.lower() in PROXY_VARIABLES and value for name, value in environment.items())
    return named and not is_this_machine(urlsplit(url).hostname or "")
