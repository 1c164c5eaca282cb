"""What an image file says of how it was made, read from its XMP packet. Files may come from anyone."""

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from PIL import Image, UnidentifiedImageError

from t2i_worker.provenance import NAMESPACES
from t2ictl.errors import InputInvalid

MAX_FILE_BYTES = 256 << 20
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
PREFIXES = {uri: prefix for prefix, uri in NAMESPACES.items()}


def read_metadata(path: Path) -> dict[str, str]:
    """The simple properties by name, such as `t2i:Seed`; empty if the file says nothing.

    Raises:
        InputInvalid: not a readable image, or its packet is none.
    """
    packet = _packet(path)
    if not packet.strip():
        return {}
    try:
        root = fromstring(packet, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise InputInvalid(f"{path}: the XMP packet is not readable: {type(error).__name__}") from error
    return {name: value for part in root.iter(f"{RDF}Description") for name, value in _properties(part).items()}


def _packet(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputInvalid(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB: no image of a pool is")
        with Image.open(path) as image:
            found = image.info.get("xmp", image.info.get("XML:com.adobe.xmp", b""))
    except UnidentifiedImageError as error:
        raise InputInvalid(f"{path} is not an image: give a .png, .jpg or .webp file") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputInvalid(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    text = found.decode(errors="replace") if isinstance(found, bytes) else str(found)
    return text.strip("\0")


def _properties(part: Element) -> dict[str, str]:
    """Both spellings of RDF: attributes, and elements of one text."""
    texts = {child.tag: child.text for child in part if child.text and not len(child)}
    return {_short(name): value for name, value in {**part.attrib, **texts}.items() if not name.startswith(RDF)}


def _short(name: str) -> str:
    uri, _, rest = name.removeprefix("{").partition("}")
    return f"{PREFIXES.get(uri, uri)}:{rest}" if rest else name
