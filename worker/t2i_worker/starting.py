"""What comes before torch: finding the model, so that a wrong path is told at once, and the engine that needs none."""

from pathlib import Path

from t2i_api.pool import ModelPart, PoolSpec
from t2i_policy.profile import ProfileError, parse_profile
from t2i_sources import MODEL, SourceMissing, find_folder
from t2i_worker.digests import variant_of
from t2i_worker.engine.simulated import SimulatedEngine
from t2i_worker.errors import ModelNotFound
from t2i_worker.jobs import ModelFacts
from t2i_worker.settings import WorkerSettings


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


def start_simulated(settings: WorkerSettings, spec: PoolSpec) -> SimulatedEngine:
    """Batch cap: the largest batch the profile measured, within `--max-batch`.

    Raises:
        ProfileError: no profile given, or not usable.
    """
    if settings.profile is None:
        raise ProfileError("a simulated worker needs --profile")
    profile = parse_profile(settings.profile.read_text())
    facts = ModelFacts(
        model_digest=profile.model_digest,
        noise_scheduler="simulated",
        dtype=spec.model.precision,
        device="simulated",
        num_inference_steps=spec.model.num_inference_steps,
        guidance_scale=spec.model.guidance_scale,
        width=spec.model.width,
        height=spec.model.height,
        latent_bytes=0,
        engine="simulated",
    )
    cap = max(1, min(settings.max_batch, len(profile.step_s)))
    return SimulatedEngine(facts, profile, cap, queue_cap=max(4, cap))


def _check_index(index: Path) -> None:
    from t2i_worker.pipelines.loading import class_of, read_index  # here, because it imports torch

    class_of(read_index(index))
