"""Loading diffusers pipelines, and the few hints that the engine needs about them. No code per family."""

from t2i_worker.pipelines.loaded import Denoiser, LoadedPipeline
from t2i_worker.pipelines.loading import load_pipeline

__all__ = ["Denoiser", "LoadedPipeline", "load_pipeline"]
