"""Loading diffusers pipelines, and the few hints that the engine needs about them. No code per family."""

from t2i_worker.pipelines.adapters import AdapterFile
from t2i_worker.pipelines.loaded import Denoiser, LoadedPipeline, PromptedPart
from t2i_worker.pipelines.loading import load_pipeline
from t2i_worker.pipelines.speed_options import SpeedOptions

__all__ = ["AdapterFile", "Denoiser", "LoadedPipeline", "PromptedPart", "SpeedOptions", "load_pipeline"]
