"""LoRA adapters over real processes: chosen by name, drawn with, and never mixed up in the cache of latents."""

from typing import Any

import grpc
import numpy as np
import pytest
import yaml

from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import drawing_pb2, gateway_pb2
from t2i_scenes import model_path
from t2i_testing_kit.serving import Client, WritePool, image_of, make_profile, violated_fields
from t2i_testing_kit.tiny_pipelines.adapters import save_adapter
from t2ictl.local_pool import LocalOptions

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Use = drawing_pb2.AdapterUse
PROMPT = "a big red circle left of a small blue square on a plain green background"


@pytest.fixture(scope="module")
def options(write_pool: WritePool) -> LocalOptions:
    """A pool with the adapters `style` and `faint`, which is the same file."""
    made = write_pool(workers=1, engine="diffusion", slo_ms=60_000)
    assert made.profile is not None
    made.profile.write_text(render_profile(make_profile((0.05,))))
    file = save_adapter(model_path(), made.pool_file.parent / "style", seed=1)
    document = yaml.safe_load(made.pool_file.read_text())
    document["spec"]["model"]["adapters"] = [
        {"name": "style", "source": f"file://{file}"},
        {"name": "faint", "source": f"file://{file.parent}", "scalePercent": 20},
    ]
    made.pool_file.write_text(yaml.safe_dump(document))
    return made


def drawn(*uses: Use, prompt: str = PROMPT, **fields: Any) -> gateway_pb2.GenerateRequest:
    return gateway_pb2.GenerateRequest(prompt=prompt, drawing=drawing_pb2.Drawing(adapters=uses), **fields)


async def test_image_is_that_of_the_adapter_at_its_scale(client: Client) -> None:
    """The same file at the same scale gives the same image, under either name. Scale 0 is the plain model."""
    uses = {
        "plain": (),
        "style": (Use(name="style"),),
        "faint": (Use(name="faint"),),
        "style as faint": (Use(name="style", scale=0.2),),
        "off": (Use(name="style", scale=0),),
    }
    images = {what: image_of(await client.events(drawn(*one, seed=1, exact=True), 60)) for what, one in uses.items()}
    assert np.array_equal(images["style as faint"], images["faint"])
    assert np.array_equal(images["off"], images["plain"])
    assert not np.array_equal(images["style"], images["faint"])
    assert not np.array_equal(images["style"], images["plain"])


async def test_latents_are_found_by_the_adapters_that_drew_them(client: Client) -> None:
    """The plain run of a prompt leaves nothing that a run with the adapter starts from; the adapter's own run does."""
    steps = []
    for uses in ((), (), (Use(name="style"),), (Use(name="style"),), (Use(name="faint"),)):
        request = drawn(*uses, prompt="a small yellow square on a plain blue background", seed=len(steps))
        steps.append((await client.events(request, 60))[-1].done.served.skipped_steps)
    assert steps == [0, 10, 0, 10, 0]


async def test_scale_of_its_own_is_served_exact(client: Client) -> None:
    """Nobody measured what levels lose there."""
    events = await client.events(drawn(Use(name="style", scale=0.7), seed=1), 60)
    assert events[0].accepted.decision.reason == "Unmeasured"


@pytest.mark.parametrize(
    ("uses", "says"),
    [
        ([Use(name="styel")], "'styel' is not known; those of the pool: faint, style"),
        ([Use(name="style"), Use(name="style", scale=0.5)], "'style' must be there once"),
        ([Use(name="style", scale=2.5)], "from 0 to 2"),
        ([Use(name="style", scale=float("nan"))], "from 0 to 2"),
    ],
)
async def test_bad_use_is_refused_with_what_there_is(client: Client, uses: list[Use], says: str) -> None:
    error = await client.refusal(drawn(*uses), 60)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(error) == ["drawing.adapters"]
    assert says in (error.details() or "")
