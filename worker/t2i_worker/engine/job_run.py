"""A job that an engine serves, and what the gateway is told of it."""

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass, field

from t2i_worker.engine.pipeline_run import DrawnImages, PipelineRun
from t2i_worker.engine.request import RunningRequest, StepEvent
from t2i_worker.errors import WorkerError
from t2i_worker.jobs import Finished, Job, Joined, StoredLatent
from t2i_worker.latents import StartLatent


@dataclass(slots=True, eq=False)
class JobRun:
    """`heard`: its steps, then its images or an error. Times are of the monotonic clock."""

    job: Job
    request: RunningRequest
    stock: PipelineRun
    start: "Future[StartLatent]"
    accepted_s: float
    fetching: "asyncio.Task[StartLatent] | None" = None
    heard: "asyncio.Queue[StepEvent | DrawnImages | WorkerError]" = field(default_factory=asyncio.Queue)

    def joined(self, batch_size: int) -> Joined:
        """It is in the batch, which has this many now."""
        stock, num_steps = self.stock, self.request.num_steps - self.stock.started.step
        cuts, begun = stock.notes.cuts, stock.started.reason
        return Joined(stock.served, begun, batch_size, prompt_cuts=cuts, num_steps=max(0, num_steps))

    def finished(self, drawn: DrawnImages, stored: tuple[StoredLatent, ...], held_id: str) -> Finished:
        """Its images are out, and its latent is kept, or set aside under this id."""
        joined_s = self.accepted_s if self.request.joined_s is None else self.request.joined_s
        denoised_s = joined_s if self.request.denoised_s is None else self.request.denoised_s
        return Finished(
            served=self.stock.served,
            wait_ms=1e3 * (joined_s - self.accepted_s),
            denoise_ms=1e3 * (denoised_s - joined_s),
            encode_ms=1e3 * drawn.encode_s,
            fetch_ms=1e3 * self.stock.started.fetch_s,
            stored=stored,
            held_id=held_id,
        )
