"""What comes before torch: finding the model, so that a wrong path is told at once, and the engine that needs none."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from t2i_api.model import ComponentPart, ModelPart
from t2i_api.pool import PoolSpec
from t2i_policy.image_size import SizeCost, step_cost_of
from t2i_policy.profile import ProfileError
from t2i_policy.profile_document import parse_profile
from t2i_sources import (
    MODEL,
    PREVIEW_DECODER,
    IpAdapterFiles,
    SourceMissing,
    control_kind,
    find_adapter,
    find_folder,
    find_ip_adapter,
)
from t2i_worker.digests import variant_of
from t2i_worker.engine.simulated import SimulatedEngine
from t2i_worker.errors import ModelNotFound
from t2i_worker.jobs import AdapterFacts, ComponentFacts, ModelFacts, StoredLatent, Tally
from t2i_worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a worker loads. By the pool's names: files of adapters; of components, a ControlNet's folder or the files of
    an IP-Adapter.
    """

    folder: Path
    adapters: Mapping[str, Path]
    components: Mapping[str, Path | IpAdapterFiles]
    preview_decoder: Path | None


def find_model_files(model: ModelPart, models_dir: Path) -> ModelFiles:
    """Everything, downloaded first if it is a hub's, so that what is missing is told before any weights are read.

    Raises:
        ModelNotFound: something is not there; says what, and what to do.
        ModelUnsupported: the engine cannot serve this hub's pipeline; its weights were not downloaded.
    """
    return ModelFiles(
        find_model(model, models_dir),
        find_adapters(model, models_dir),
        {one.name: find_component(model, one, models_dir) for one in model.components},
        find_preview_decoder(model, models_dir),
    )


def find_model(model: ModelPart, models_dir: Path) -> Path:
    """The model's folder, downloaded first if it is a hub's: of weights at several precisions, those of the pool.

    Raises:
        ModelNotFound: there is none; says what to do.
        ModelUnsupported: the engine cannot serve this hub's pipeline; its weights were not downloaded.
    """
    variant = variant_of(model.precision)
    try:
        return find_folder(MODEL, model.source, models_dir, model.revision, variant, _check_index)
    except SourceMissing as error:
        raise ModelNotFound(str(error)) from error


def find_preview_decoder(model: ModelPart, models_dir: Path) -> Path | None:
    """Its folder, downloaded first if it is a hub's; None if the pool names none.

    Raises:
        ModelNotFound: there is none; says what to do.
    """
    if not model.preview_decoder:
        return None
    try:
        return find_folder(PREVIEW_DECODER, model.preview_decoder, models_dir)
    except SourceMissing as error:
        raise ModelNotFound(str(error)) from error


def find_adapters(model: ModelPart, models_dir: Path) -> dict[str, Path]:
    """The files of the pool's adapters by name, downloaded first if they are a hub's.

    Raises:
        ModelNotFound: one is not there; says which, and what to do.
    """
    try:
        return {one.name: find_adapter(one.name, one.source, models_dir, one.weight_name) for one in model.adapters}
    except SourceMissing as error:
        raise ModelNotFound(str(error)) from error


def find_component(model: ModelPart, one: ComponentPart, models_dir: Path) -> Path | IpAdapterFiles:
    """A ControlNet's folder, or an IP-Adapter's files; downloaded first if they are a hub's.

    Raises:
        ModelNotFound: it is not there; says what to do.
    """
    try:
        if one.weight_name is not None:
            return find_ip_adapter(one.name, one.source, models_dir, one.weight_name, one.image_encoder)
        return find_folder(control_kind(one.name), one.source, models_dir, variant=variant_of(model.precision))
    except SourceMissing as error:
        raise ModelNotFound(str(error)) from error


class SimulatedModels:
    """Makes a worker's simulated engines. To load another model takes what `--simulated-reload-s` says."""

    def __init__(self, settings: WorkerSettings, spec: PoolSpec) -> None:
        self.tally = Tally()
        self.own_latents = None
        self._settings = settings
        self._spec = spec
        self._started = False

    async def prepare(self, model: str) -> None:
        """There is nothing to find."""

    def keeps(self, model: str) -> bool:
        del model
        return False

    async def make(self, model: str) -> SimulatedEngine:
        """Raises:
        ProfileError: no profile given, not usable, or without a section for the model.
        """
        if self._started:
            await asyncio.sleep(self._settings.simulated_reload_s)
        engine = start_simulated(self._settings, self._spec, model, self.tally)
        self._started = True
        return engine

    async def keep_latent(self, held_id: str) -> tuple[StoredLatent, ...]:
        del held_id  # they set none aside
        return ()

    async def close(self) -> None:
        """There is no store."""


def start_simulated(settings: WorkerSettings, spec: PoolSpec, name: str, tally: Tally | None = None) -> SimulatedEngine:
    """Of the model `name` of the pool. Batch cap: the largest batch the profile measured, within `--max-batch`.

    Raises:
        ProfileError: no profile given, not usable, or without a section for the model.
    """
    if settings.profile is None:
        raise ProfileError("a simulated worker needs --profile")
    profile = parse_profile(settings.profile.read_text())
    model, measured = spec.model_called(name), profile.section(name)
    default, *further = model.measured_sizes
    facts = ModelFacts(
        model_digest=measured.model_digest,
        noise_scheduler="simulated",
        dtype=model.precision,
        device="simulated",
        num_inference_steps=model.num_inference_steps,
        guidance_scale=model.guidance_scale,
        width=model.width,
        height=model.height,
        latent_bytes=0,
        engine="simulated",
        sizes=tuple(SizeCost(size, step_cost_of(size, default, profile.sizes)) for size in further),
        image_inputs=("init_image", "mask", "reference_images", "strength"),
        adapters=tuple(AdapterFacts(one.name, one.source, one.scale) for one in model.adapters),
        components=tuple(ComponentFacts(one.name, one.source, one.scale, one.kind) for one in model.components),
        model=name,
    )
    cap = max(1, min(settings.max_batch, len(measured.step_s)))
    return SimulatedEngine(facts, measured, cap, max(4, cap), tally)


def _check_index(index: Path) -> None:
    from t2i_worker.pipelines.loading import class_of, read_index  # here, because it imports torch

    class_of(read_index(index))
