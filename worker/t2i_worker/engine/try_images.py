"""Find out at the start what the model really draws from images: diffusers has siblings that do not work with it."""

import logging
from collections.abc import Callable
from dataclasses import replace

from t2i_policy.level import Level
from t2i_worker.device_errors import free_memory, is_device_lost
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.jobs import Job
from t2i_worker.pipelines import LoadedPipeline

log = logging.getLogger(__name__)
STEPS = 2


def try_images(pipeline: LoadedPipeline, guidance_scale: float, progress: Callable[[str], None]) -> None:
    """Draw a short image by each task, and forget those that draw none.

    Raises:
        Exception: the device is lost.
    """
    for task in pipeline.tasks.tasks:
        if task.kind is type(pipeline.stock) and pipeline.tasks.always:
            continue  # the warm-up tells what is wrong with the model itself
        images = pipeline.sample_for(task)
        job = Job("warm-up", "warm up", "", 0, guidance_scale, Level(0, STEPS), "png", images=images)
        try:
            stock, arguments = pipeline.stock_for(images), pipeline.arguments(job)
            StockCall(pipeline, arguments, pipeline.denoiser.forward, stock=stock).draw(0)
        except Exception as error:
            if is_device_lost(error, pipeline.device):
                raise
            free_memory()
            others = tuple(one for one in pipeline.tasks.tasks if one is not task)
            pipeline.tasks = replace(pipeline.tasks, tasks=others)
            log.warning("%s draws nothing here (%s: %s)", task.kind.__name__, type(error).__name__, error)
    progress(f"images: {pipeline.tasks}")
