"""The same load through the HTTP door, by the official `openai` client.

A client of HTTP without `stream` does not know whether its request was accepted. So whatever is neither an image nor a
429 counts as accepted and lost.
"""

import asyncio
import base64
import itertools
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack

from openai import APIConnectionError, APIStatusError, AsyncOpenAI

from e2e_load import RETRY_PAUSE_S, Load, Outcome, Prompt

CLIENTS = 8  # each with connections of its own
ASKED_AGAIN = {"503", "CONNECTION"}
IDEMPOTENCY_KEY = "Idempotency-Key"


class HttpLoad(Load):
    """Clients of one HTTP address. The key of a request stays the same when it is asked again."""

    async def run(self, instants: Sequence[float], asked: Sequence[Prompt]) -> list[Outcome]:
        """Send each prompt at its instant, wait for all."""
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    AsyncOpenAI(base_url=f"http://{self.address}/v1", api_key="none", max_retries=0)
                )
                for _ in range(CLIENTS)
            ]
            turns = itertools.cycle(clients)
            return await self.send_all(instants, asked, lambda outcome: self._draw(outcome, turns))

    async def _draw(self, outcome: Outcome, clients: "itertools.cycle[AsyncOpenAI]") -> None:
        key = str(uuid.uuid4())
        for _ in range(self.tries):
            left_s = self.limit_s - (self.now_s() - outcome.at_s)
            if left_s <= 0:
                break
            try:
                await self._ask(outcome, next(clients), key, left_s)
                break
            except APIConnectionError as error:
                outcome.code, outcome.message = "CONNECTION", str(error)
            except APIStatusError as error:
                outcome.code, outcome.message = str(error.status_code), error.message
            outcome.accepted = outcome.code != "429"
            if outcome.code not in ASKED_AGAIN:
                break
            outcome.retries += 1
            await asyncio.sleep(RETRY_PAUSE_S)
        outcome.ended_s = self.now_s()

    async def _ask(self, outcome: Outcome, client: AsyncOpenAI, key: str, left_s: float) -> None:
        prompt = outcome.prompt
        answer = await client.images.generate(
            prompt=prompt.text,
            model=self.model or None,
            timeout=left_s,
            extra_body={"seed": prompt.seed},
            extra_headers={IDEMPOTENCY_KEY: key},
        )
        (image,) = answer.data or ()
        (story,) = (answer.model_extra or {})["t2i"]["images"]
        outcome.code, outcome.accepted, outcome.moved = "OK", True, story["retries"]
        outcome.image = base64.b64decode(image.b64_json or "")
        outcome.model = story["served_level"].get("model", "")
        outcome.served = (story["served_level"]["skipped_steps"], story["served_level"]["num_inference_steps"])
        outcome.wanted = (story["wanted_level"]["skipped_steps"], story["wanted_level"]["num_inference_steps"])
        outcome.expected_percent = story["expected_quality_percent"]
