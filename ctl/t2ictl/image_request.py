"""The options that say which image: the same for every command that sends a request."""

from typing import Annotated

import typer

from t2i_gateway.request import MAX_GUIDANCE_SCALE
from t2i_protos.v1 import gateway_pb2
from t2ictl.drawing import (
    Adapters,
    Arguments,
    Controls,
    ImageFile,
    IpAdapterImages,
    MaskFile,
    ReferenceFiles,
    SamplerName,
    Strength,
    component_images_of,
    drawing_of,
    images_of,
)
from t2ictl.options import ImageSeed, QualityFloor
from t2ictl.parameter_groups import with_group
from t2ictl.running import told_in_a_line

MAX_UINT32 = 2**32 - 1  # what the wire carries
Pixels = Annotated[
    int, typer.Option(min=0, max=MAX_UINT32, help="width and height of the image, together; left out: the pool's size")
]


def _request(
    prompt: str,
    *,
    negative_prompt: str = "",
    seed: ImageSeed = None,
    exact: Annotated[bool, typer.Option(help="no approximation")] = False,
    min_quality_percent: QualityFloor = None,
    max_skipped_steps: Annotated[int | None, typer.Option(min=0, max=MAX_UINT32)] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_UINT32, help="fix the schedule length, without approximation")
    ] = None,
    model: Annotated[str, typer.Option(help="which of the pool's models draws it; left out: any")] = "",
    guidance_scale: Annotated[float | None, typer.Option(min=0, max=MAX_GUIDANCE_SCALE)] = None,
    width: Pixels = 0,
    height: Pixels = 0,
    num_images: Annotated[
        int, typer.Option(min=1, max=MAX_UINT32, help="images with seeds in a row; files get -1, -2, ...")
    ] = 1,
    sampler: SamplerName = "",
    arguments: Arguments = None,
    adapters: Adapters = None,
    controls: Controls = None,
    ip_images: IpAdapterImages = None,
    init_image: ImageFile = None,
    strength: Strength = None,
    mask: MaskFile = None,
    reference_images: ReferenceFiles = None,
    prompt_in_file: Annotated[
        bool | None, typer.Option(help="write the prompt into the file's metadata; left out: as the pool says")
    ] = None,
) -> gateway_pb2.GenerateRequest:
    with told_in_a_line():
        drawing = drawing_of(sampler, arguments, adapters)
        drawing.images.MergeFrom(images_of(init_image, strength, mask, reference_images))
        drawing.images.MergeFrom(component_images_of(controls, ip_images))
    return gateway_pb2.GenerateRequest(
        prompt=prompt,
        negative_prompt=negative_prompt,
        seed=seed,
        exact=exact,
        min_quality_percent=min_quality_percent,
        max_skipped_steps=max_skipped_steps,
        num_inference_steps=steps,
        model=model,
        guidance_scale=guidance_scale,
        width=width,
        height=height,
        num_images=num_images,
        drawing=drawing,
        prompt_in_file=prompt_in_file,
    )


with_request = with_group("request", _request)
