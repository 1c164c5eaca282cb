"""Prompts of tenants of their own, asked of gateways whose store is in trouble: what was served, and the image."""

import asyncio
import io
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from t2i_protos.v1 import gateway_pb2
from t2i_scenes import sample_scene
from t2i_scenes.captions import caption
from t2i_testing_kit.serving import Client

Request = gateway_pb2.GenerateRequest
BACK_WITHIN_S = 120.0
Image8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """One tenant's caption."""

    prompt: str
    tenant: str

    async def draw(self, client: Client, seed: int, exact: bool = False) -> tuple[int, Image8]:
        """The steps that were skipped and the image, which must be there."""
        events = await client.events(Request(prompt=self.prompt, seed=seed, exact=exact), 60, self.tenant)
        data = b"".join(event.chunk.data for event in events if event.HasField("chunk"))
        return events[-1].done.served.skipped_steps, np.asarray(Image.open(io.BytesIO(data)))


def scene_of(name: str) -> Scene:
    """A caption of its own for each test."""
    rng = np.random.default_rng(sum(map(ord, name)))
    return Scene(caption(sample_scene(rng), rng), re.sub(r"[^a-z]+", "-", name))


def assert_same(one: Image8, other: Image8) -> None:
    """Equal but for rounding: a start from noise is a start from noise, whatever was tried before it."""
    assert int(np.abs(one.astype(int) - other.astype(int)).max()) <= 2


async def until_hit(scene: Scene, client: Client) -> None:
    """Ask until it starts from a latent."""
    async with asyncio.timeout(BACK_WITHIN_S):
        while not (await scene.draw(client, 100))[0]:
            pass
