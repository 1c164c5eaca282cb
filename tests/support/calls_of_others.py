"""Run by the Python of an environment of its own: makes calls that are told in JSON with a client of other people.

    python calls_of_others.py CLIENT BASE_URL < calls.json > outcomes.json

Each outcome has `sizes`, of the images as they came, or `error`, the class, with `status` and `message`.
"""

import base64
import io
import json
import struct
import sys
from collections.abc import Callable
from typing import Any

Call = Callable[..., Any]
KEY = "none"


def litellm_library(base: str) -> Call:
    import litellm

    litellm.suppress_debug_info = True
    place = {"model": "openai/test", "api_base": base, "api_key": KEY, "timeout": 60, "max_retries": 0}

    def call(image: str = "", **fields: Any) -> Any:
        if image:
            file = io.BytesIO(base64.b64decode(image))
            file.name = "image.png"
            return litellm.image_edit(image=[file], **place, **fields)
        return litellm.image_generation(**place, **fields)

    return call


def langchain_tool(base: str) -> Call:
    """The tool as it is; with `client`, only the wrapper's own client of OpenAI's API."""
    from langchain_community.tools.openai_dalle_image_generation import OpenAIDALLEImageGenerationTool
    from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper

    def call(prompt: str, client: bool = False, **fields: Any) -> Any:
        place = {"model": "test", "base_url": base, "api_key": KEY, "max_retries": 0, "timeout": 60}
        wrapper = DallEAPIWrapper(**place, **({} if client else fields))
        if client:
            return wrapper.client.generate(prompt=prompt, **fields)
        return OpenAIDALLEImageGenerationTool(api_wrapper=wrapper).run(prompt)

    return call


def outcome(call: Call, fields: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = call(**fields)
        return {"sizes": [size_of(base64.b64decode(one.b64_json)) for one in answer.data]}
    except Exception as error:  # noqa: BLE001 - that is what a call may come to
        told = {"error": type(error).__name__, "message": str(error)[:500]}
        return {**told, "status": getattr(error, "status_code", None)}


def size_of(data: bytes) -> str:
    """Of a PNG; else what it begins with."""
    if not data.startswith(b"\x89PNG"):
        return repr(data[:4])
    width, height = struct.unpack(">II", data[16:24])
    return f"{width}x{height}"


if __name__ == "__main__":
    made = {"litellm": litellm_library, "langchain": langchain_tool}[sys.argv[1]](sys.argv[2])
    json.dump([outcome(made, fields) for fields in json.load(sys.stdin)], sys.stdout)
