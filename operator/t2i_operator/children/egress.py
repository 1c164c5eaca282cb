"""Ports that pods reach because of their templates: those of a proxy or of a mirror of the hub.

Both are named by variables of the container. Values in Secrets and ConfigMaps are not read, so their ports are not
known: a NetworkPolicy of the owner's adds them.
"""

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from t2i_operator.children.templates import Overrides
from t2i_operator.errors import TemplateInvalid

VARIABLES = ("hf_endpoint", "http_proxy", "https_proxy", "all_proxy")
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


def outside_ports(everything: Iterable[Overrides]) -> list[int]:
    """Each once, in order.

    Raises:
        TemplateInvalid: a variable holds no address; names the field.
    """
    return sorted({port for overrides in everything for port in _ports(overrides)})


def _ports(overrides: Overrides) -> Iterator[int]:
    for one in overrides.template.get("env", ()):
        value = one.get("value")
        if one["name"].lower() in VARIABLES and isinstance(value, str) and value:
            yield _port(value, f"{overrides.field}: env {one['name']}")


def _port(value: str, field: str) -> int:
    """An address without a scheme is one of a plain proxy, as curl takes it."""
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        port = None
    if port is None:
        raise TemplateInvalid(f"{field} must be an address such as http://HOST:PORT")
    return port
