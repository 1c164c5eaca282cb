"""What an image file says of how it was made: an XMP packet, the same for png, jpeg and webp.

Standard properties come first, for programs that know nothing of us. IPTC's digital source type says that a model made
the picture. IPTC's properties also name the model and the prompt (Photo Metadata Standard 2025.1). Ours are in a
namespace of our own. Nothing depends on a clock, so equal requests give equal files.
"""

import re
from xml.sax.saxutils import quoteattr

from t2i_policy.level import Level
from t2i_runtime.product import PRODUCT, VERSION
from t2i_worker.jobs import Job

NAMESPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "t2i": "https://t2iserving.dev/ns/image/1.0/",
}
_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
FROM_TEXT = f"{_SOURCE_TYPES}trainedAlgorithmicMedia"
FROM_IMAGES = f"{_SOURCE_TYPES}compositeWithTrainedAlgorithmicMedia"
#: A jpeg's packet has one segment of 64 KiB; two texts of this length fit whatever their characters.
MAX_TEXT_CHARACTERS = 4096
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about=""
 {attributes}/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


def xmp_packet(job: Job, served: Level, model_digest: str) -> bytes:
    """The packet of a job's image; empty if its file says nothing."""
    if job.file_notes is None:
        return b""
    properties = {f"xmlns:{prefix}": uri for prefix, uri in NAMESPACES.items()} | _properties(job, served, model_digest)
    attributes = "\n ".join(f"{name}={_quoted(value)}" for name, value in properties.items())
    return _PACKET.format(attributes=attributes).encode()


def _properties(job: Job, served: Level, model_digest: str) -> dict[str, str]:
    notes, images = job.file_notes, job.drawing.images
    if notes is None:
        return {}
    told = {
        "Iptc4xmpExt:DigitalSourceType": FROM_IMAGES if images.used else FROM_TEXT,
        "Iptc4xmpExt:AISystemUsed": notes.model,
        "xmp:CreatorTool": f"{PRODUCT} {VERSION}",
        "t2i:Version": VERSION,
        "t2i:Pool": notes.pool,
        "t2i:Model": notes.model,
        "t2i:ModelDigest": model_digest,
        "t2i:Seed": str(job.seed),
        "t2i:Level": served.phrase,
        "t2i:NumInferenceSteps": str(served.num_inference_steps),
        "t2i:SkippedSteps": str(served.skipped_steps),
        "t2i:GuidanceScale": f"{job.guidance_scale:g}",
    }
    if notes.prompt:
        told["Iptc4xmpExt:AIPromptInformation"] = job.prompt
        told["t2i:NegativePrompt"] = job.negative_prompt
    return {name: value for name, value in told.items() if value}


def _quoted(text: str) -> str:
    """As an attribute's value; characters that no XML may hold are replaced."""
    return quoteattr(_NOT_IN_XML.sub("\ufffd", text[:MAX_TEXT_CHARACTERS]))
