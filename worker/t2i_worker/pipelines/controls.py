"""ControlNets of a pool: each with the pipeline class that diffusers has for it, on the model's own components.

The ControlNet runs in the request's own thread at each step, alone. What it finds are rows among the denoiser's
arguments, so requests with a ControlNet of the same kind still meet.
"""

import json
from pathlib import Path
from typing import Any

import diffusers

from t2i_sources import choose_decoder_files
from t2i_worker.errors import ModelUnsupported
from t2i_worker.pipelines.image_tasks import make_sibling
from t2i_worker.pipelines.loaded import LoadedPipeline
from t2i_worker.pipelines.variants import kind_of_weights


def load_control(pipeline: LoadedPipeline, name: str, folder: Path, variant: str = "") -> None:
    """Load a ControlNet onto the pipeline's device; requests may name it from now on.

    `variant` (fp16, bf16) chooses among its weights if there are several.

    Raises:
        ModelUnsupported: diffusers has no such pipeline for this model, or the folder holds no ControlNet.
    """
    stock, field = pipeline.stock, f"model.components[{name!r}]"
    kind = getattr(diffusers, type(stock).__name__.removesuffix("Pipeline") + "ControlNetPipeline", None)
    if not isinstance(kind, type):
        raise ModelUnsupported(f"{field}: diffusers has no ControlNet pipeline for {type(stock).__name__}")
    try:
        named = json.loads((folder / "config.json").read_text()).get("_class_name", "")
        if not named.endswith("ControlNetModel"):
            raise ModelUnsupported(
                f"{field}: it is a {named or 'model without a class'}, not a ControlNet of diffusers"
            )
        chosen = choose_decoder_files([path.name for path in folder.iterdir()], (), variant)
        made: Any = getattr(diffusers, named).from_pretrained(
            folder, dtype=pipeline.dtype, variant=kind_of_weights(chosen), local_files_only=True
        )
        pipeline.controlled[name] = make_sibling(kind, stock, controlnet=made.to(pipeline.device).eval())
    except ModelUnsupported:
        raise
    except Exception as error:  # each library that reads files raises its own kinds
        raise ModelUnsupported(f"{field}: it cannot be loaded: {type(error).__name__}: {error}"[:500]) from error
