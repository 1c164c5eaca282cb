"""IP-Adapters of a pool: requests show the model an image beside the prompt. diffusers' own loaders read them.

Each is loaded into the denoiser once and taken out again; forwards that ask for it get it back. A pipeline encodes its
image in the request's own thread, and looks for the adapter's projection in its denoiser. It finds it in a twin of the
denoiser, which shares everything else.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.loaders import FluxIPAdapterMixin, IPAdapterMixin, SD3IPAdapterMixin
from safetensors import safe_open
from transformers import CLIPVisionModelWithProjection, SiglipImageProcessor, SiglipVisionModel

from t2i_sources import IpAdapterFiles
from t2i_worker.errors import ModelUnsupported
from t2i_worker.pipelines.ip_adapter_switch import KIND, InsertedParts
from t2i_worker.pipelines.loaded import LoadedPipeline

#: In the projections of FaceID adapters of all sorts, and in no other.
_FACES = ("image_proj.perceiver_resampler.", "image_proj.proj.0.", "_lora.")
_NO_FACES = "image_proj.proj.3."  # "full face" adapters look at the image itself


@dataclass(frozen=True, slots=True)
class _AdapterFamily:
    """How diffusers loads those of some pipelines.

    Attributes:
        mixin: What these pipelines inherit.
        denoiser: Its name among their components.
        projection: Where the denoiser keeps the projection of images.
        reads_patches: The encoder is a SigLIP, with settings of its own for images. Otherwise it is a CLIP.
        no_encoder: What tells the loader to load no encoder.
    """

    mixin: Any
    denoiser: str
    projection: str
    no_encoder: str
    reads_patches: bool = False

    def encoder_parts(self, folder: Path, pipeline: LoadedPipeline) -> dict[str, Any]:
        kind = SiglipVisionModel if self.reads_patches else CLIPVisionModelWithProjection
        encoder: Any = kind.from_pretrained(folder, dtype=pipeline.dtype, local_files_only=True)
        parts = {"image_encoder": encoder.to(pipeline.device).eval()}
        if self.reads_patches:
            parts["feature_extractor"] = SiglipImageProcessor.from_pretrained(folder, local_files_only=True)
        return parts


_FAMILIES = (
    _AdapterFamily(IPAdapterMixin, "unet", "encoder_hid_proj", "image_encoder_folder"),
    _AdapterFamily(
        FluxIPAdapterMixin, "transformer", "encoder_hid_proj", "image_encoder_pretrained_model_name_or_path"
    ),
    _AdapterFamily(SD3IPAdapterMixin, "transformer", "image_proj", "image_encoder_folder", reads_patches=True),
)


def load_ip_adapter(pipeline: LoadedPipeline, name: str, files: IpAdapterFiles) -> None:
    """Load one beside the pipeline; requests may name it from now on.

    Raises:
        ModelUnsupported: the model takes no IP-Adapter, or this one is broken or does not fit.
    """
    stock, switch = pipeline.stock, pipeline.denoiser.ip_adapters
    family = _family_of(stock)
    if family is None:
        takers = "Stable Diffusion 1, 2, XL and 3, FLUX.1 and Chroma"
        raise _refused(name, f"{type(stock).__name__} takes no IP-Adapter; the pipelines of {takers} do")
    problem = _problem(files.weights)
    if problem:
        raise _refused(name, problem)
    view = copy.copy(stock)
    switch.remember_own(family.projection)
    try:
        view.register_modules(**family.encoder_parts(files.encoder, pipeline))
        view.load_ip_adapter(
            str(files.weights.parent),
            subfolder="",
            weight_name=files.weights.name,
            local_files_only=True,
            **{family.no_encoder: None},  # it is there
        )
        parts = switch.take_out(name)
    except Exception as error:  # diffusers, transformers, torch and safetensors raise their own kinds
        raise _refused(name, f"it cannot be loaded: {type(error).__name__}: {error}"[:500]) from error
    finally:
        switch.restore()
    view.__dict__[family.denoiser] = _twin(pipeline.denoiser.module, family.projection, parts)
    pipeline.shown[name] = view


def _family_of(stock: Any) -> _AdapterFamily | None:
    fit = (one for one in _FAMILIES if isinstance(stock, one.mixin) and hasattr(stock, one.denoiser))
    return next(fit, None)


def _problem(weights: Path) -> str | None:
    try:
        with safe_open(weights, framework="pt") as file:
            names = list(file.keys())
    except Exception as error:  # noqa: BLE001 - safetensors raises its own kinds
        return f"{weights.name} is no safetensors file: {error}"
    if any(word in one for one in names for word in _FACES) and not any(_NO_FACES in one for one in names):
        return (
            "it is a FaceID adapter: these look at what a face recogniser found instead of an image, and most bring "
            "LoRA weights that would change the model for all requests; use a plain, plus or plus-face adapter"
        )
    return None


def _twin(module: Any, projection: str, parts: InsertedParts) -> Any:
    """The same module, with the adapter's parts as its own. Its calls go where the module's go."""
    twin = copy.copy(module)
    twin.__dict__["_modules"] = {**module._modules, projection: parts.projection}
    twin.__dict__["_internal_dict"] = type(module.config)({**module.config, KIND: parts.kind})
    twin.__class__ = _twin_class(type(module), {str(at): one for at, one in _at_work(parts.processors).items()})
    return twin


def _twin_class(kind: Any, processors: Mapping[str, Any]) -> Any:
    """Pipelines that ask which processors their denoiser has get the adapter's, whatever acts in a forward now."""
    body = {"attn_processors": property(lambda _: processors), "__module__": kind.__module__}
    return type(kind.__name__, (kind,), body)


def _at_work(processors: Mapping[int, Any]) -> Mapping[int, Any]:
    """Copies that share the weights and keep a scale of 1. SD3's pipelines leave out the image if they find a 0."""
    copies = {at: copy.copy(one) for at, one in processors.items()}
    for one in copies.values():
        one.scale = [1.0] if isinstance(one.scale, list) else 1.0
    return copies


def _refused(name: str, why: str) -> ModelUnsupported:
    return ModelUnsupported(f"model.components[{name!r}]: {why}")
