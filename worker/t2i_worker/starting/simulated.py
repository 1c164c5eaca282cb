"""Start a simulated engine from a profile."""

from t2i_api.pool import PoolSpec
from t2i_policy.profile import ProfileError, parse_profile
from t2i_worker.engine.simulated import SimulatedEngine
from t2i_worker.jobs import ModelFacts
from t2i_worker.settings import WorkerSettings


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
