"""The diffusion engine: one warm model behind the step loop.

What happens to a job:

1. its thread begins the stock pipeline's call, while the event loop fetches its start latent (`_begin`),
2. the calls of the denoiser join the batch and step until the schedule ends (`StepLoop`),
3. its thread decodes and encodes the image; then its latent is kept for later prompts (`_finish`).

Only the denoiser runs in the denoise thread. So the device never waits for text, pixels or files, and the event loop
never waits for the device. An exception in any of these threads ends its own request, with an error of `errors`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

from torch import Tensor

from t2i_cache.fetching import Fetched, FetchReason
from t2i_policy.level import Level
from t2i_policy.readiness import EngineSigns, Readiness, ReadyReason, judge_readiness
from t2i_worker.device_errors import is_device_lost, is_out_of_memory
from t2i_worker.engine.accepted_jobs import MAX_BACKGROUND, AcceptedJobs
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.job_run import JobRun
from t2i_worker.engine.pipeline_run import FAILED_AT, FROM_NOISE, DrawnImages, PipelineRun, SharedParts
from t2i_worker.engine.refused_arguments import refused_arguments
from t2i_worker.engine.request import Deliveries, Left, RunningRequest, StepDone, StepEntered
from t2i_worker.engine.saved_calls import check_savings
from t2i_worker.engine.self_test import SelfTest
from t2i_worker.engine.side_threads import RequestThreads
from t2i_worker.engine.start_fetching import fetch_limit_s, pass_on
from t2i_worker.engine.step_loop import StepLoop
from t2i_worker.engine.try_samplers import SamplerTrials
from t2i_worker.errors import (
    BudgetSpent,
    EngineLost,
    JobFailed,
    OutOfMemory,
    WorkerError,
    WorkerUnready,
    where,
)
from t2i_worker.input_images import decode_images
from t2i_worker.jobs import (
    Event,
    Image,
    Job,
    Joined,
    Load,
    ModelFacts,
    PreviewImage,
    Progress,
    StoredLatent,
    Tally,
)
from t2i_worker.latents import LatentCache, StartLatent, to_start
from t2i_worker.pipelines import LoadedPipeline

log = logging.getLogger(__name__)
STOP_LIMIT_S = 10.0
TEST_STEPS = 2


class DiffusionEngine:
    """Create it inside a running event loop. `tally` counts on, of an earlier engine of this process."""

    def __init__(
        self,
        pipeline: LoadedPipeline,
        facts: ModelFacts,
        times: WarmUpTimes,
        latents: LatentCache,
        queue_cap: int | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.facts = facts
        self.tally = tally or Tally(store=latents.health, latents_not_kept=latents.not_kept)
        self.own_latents = latents.own
        self._pipeline = pipeline
        pipeline.vae.tally = self.tally
        self._latents = latents
        self._fixed_s = times.fixed_s
        self._queue_cap = max(4, times.batch_cap) if queue_cap is None else queue_cap
        self._jobs = AcceptedJobs()
        self._event_loop = asyncio.get_running_loop()
        least_cost = min([1.0, *(one.step_cost for one in times.sizes)])
        self._threads = RequestThreads(ceil((times.batch_cap + self._queue_cap) / least_cost) + MAX_BACKGROUND)
        self._runs: dict[RunningRequest, JobRun] = {}
        self._step_loop = StepLoop(pipeline.denoiser, times, self._deliver_soon, self.tally)
        self._parts = SharedParts(pipeline, self._step_loop, facts.model_digest)
        self._samplers = SamplerTrials(pipeline)
        self._step_loop.start()
        self._self_test = SelfTest(self.draw_test, self._jobs.notify, self.tally)

    def readiness(self) -> Readiness:
        lost, step_s = self._step_loop.lost, self._step_loop.state.step_s
        signs = EngineSigns(
            draining=self._jobs.draining,
            lost=None if lost is None else lost.reason,
            failures=self._self_test.failures,
            step_age_s=self._step_loop.step_age_s,
            step_s=max(step_s, default=0.0),
        )
        return judge_readiness(signs)

    def load(self) -> Load:
        state = self._step_loop.state
        now_s = time.monotonic()
        runs = [run.stock for run in self._runs.values() if not run.request.background]
        beside_s = [now_s - began_s for stock in runs if (began_s := stock.side_began_s) is not None]
        return Load(
            ready=self.readiness().ready,
            draining=self._jobs.draining,
            running=state.running,
            # A cancelled job is not counted any more, but runs until the next step boundary.
            waiting=max(0, self._jobs.count - state.running),
            batch_cap=state.batch_cap,
            queue_cap=self._queue_cap,
            step_s=state.step_s[: state.batch_cap],
            fixed_s=self._fixed_s,
            steps_left=state.steps_left,
            steps_took_s=self.tally.steps_took_s,
            steps_usual_s=self.tally.steps_usual_s,
            step_age_s=self._step_loop.step_age_s if self._jobs.count else 0.0,
            encode_age_s=max(beside_s, default=0.0),
            places=self._jobs.places,
            longest_step_s=state.longest_step_s,
            background=self._jobs.background,
            model=self.facts.model,
        )

    async def changed(self) -> None:
        await self._jobs.changed()

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        with self._taken(job):
            if job.background:
                await self._jobs.none_else(job)  # its text, too, would keep others from the device
            verdict = self.readiness()
            if not verdict.ready:
                raise self._step_loop.lost or WorkerUnready(f"the worker takes no requests now: {verdict.reason}")
            try:
                async with aclosing(self._draw(job)) as events:
                    async for event in events:
                        yield event
            except JobFailed as error:
                self._self_test.count_failure(job.request_id or str(id(job)), error)
                raise
            except (WorkerError, asyncio.CancelledError):
                raise  # a full queue, a spent budget or a cancellation is no fault of the worker
            except Exception as error:
                failed = self._to_worker_error(error, "the worker failed on this request")
                if isinstance(failed, JobFailed):
                    self._self_test.count_failure(job.request_id or str(id(job)), failed)
                raise failed from error

    @contextmanager
    def _taken(self, job: Job) -> Iterator[None]:
        """Hold the job's places. The cap is read for each job, because running out of memory lowers it."""
        if job.background:
            with self._jobs.taken_aside():
                yield
            return
        cap, places = self._step_loop.state.batch_cap + self._queue_cap, self.facts.step_cost(job.size)
        with self._jobs.taken(cap, places), self._step_loop.foreground():
            yield

    async def keep_latent(self, held_id: str) -> tuple[StoredLatent, ...]:
        return await self._latents.keep_aside(held_id)

    async def drain(self) -> None:
        await self._jobs.drain()

    async def close(self) -> None:
        self._jobs.draining = True
        await self._self_test.close()
        await asyncio.to_thread(self._step_loop.stop, STOP_LIMIT_S)
        self._threads.close()
        self._jobs.notify()

    async def _draw(self, job: Job) -> AsyncGenerator[Event, None]:
        if job.drawing.images:
            job = await self._threads.decode(partial(self._with_images, job))
        if not self._samplers.knows(job):
            await self._try_sampler(job)
        run = self._begin(job)
        try:
            async with aclosing(self._follow(run)) as events:
                async for event in events:
                    yield event
        finally:
            # When the caller closes the generator, the request must leave the batch too.
            self._step_loop.cancel(run.request)
            if run.fetching is not None:
                run.fetching.cancel()
            self._runs.pop(run.request, None)

    async def draw_test(self) -> None:
        """Draw a short image of our own.

        Raises:
            WorkerError: it fails.
        """
        facts = self.facts
        level = Level(0, min(TEST_STEPS, facts.num_inference_steps), model=facts.model)
        job = Job(
            "self-test", "a photo", "", 0, facts.guidance_scale, level, "png", images=self._pipeline.sample_images()
        )
        async for _ in self._draw(job):
            pass

    def _with_images(self, job: Job) -> Job:
        decoded = replace(job, images=decode_images(job.drawing.images))
        return replace(decoded, images=self._pipeline.fitted(decoded))

    async def _try_sampler(self, job: Job) -> None:
        """A trial that outlasts the job's budget goes on: the next request finds its result."""
        try:
            async with asyncio.timeout(job.seconds_left):
                await self._threads.aside(partial(self._samplers.check, job))
        except TimeoutError as error:
            raise BudgetSpent("the budget ran out before the first step") from error

    def _begin(self, job: Job) -> JobRun:
        """Start the job's thread, and fetch its start latent at the same time.

        Raises:
            JobInvalid: the pipeline does not take what the job says.
        """
        request = RunningRequest(
            job.level.num_inference_steps,
            job.deadline_s,
            self.facts.step_cost(job.size),
            job.level.step_share,
            job.background,
        )
        start: Future[StartLatent] = Future()
        stock = PipelineRun(self._parts, job, request, start)
        check_savings(job.level, stock.scheduler, self._pipeline.prompted_part)
        if job.sink is not None:
            stock.keep = frozenset({job.level.num_inference_steps})
        run = JobRun(job, request, stock, start, time.monotonic())
        if job.level.skipped_steps:
            run.fetching = asyncio.create_task(self._fetch(job))
            run.fetching.add_done_callback(partial(pass_on, start))
        else:
            start.set_result(FROM_NOISE)
        self._runs[request] = run
        self._threads.start(partial(self._work, run))
        return run

    def _work(self, run: JobRun) -> None:
        """The job's own thread."""
        outcome: DrawnImages | WorkerError
        try:
            outcome = run.stock.draw()
        except Left:
            return
        except WorkerError as error:
            outcome = error
        except BaseException as error:  # noqa: BLE001 - also SystemExit: nobody else would tell the request
            outcome = refused_arguments(run.job, error) or self._to_worker_error(error, FAILED_AT[run.stock.place])
        self._tell(run.heard.put_nowait, outcome)

    def _to_worker_error(self, error: BaseException, failed: str) -> WorkerError:
        """Any thread may call it."""
        if is_device_lost(error, self._pipeline.device):
            log.critical("the device is lost to this process: %s", error)
            lost = EngineLost("the worker's device failed", ReadyReason.DEVICE_LOST)
            self._step_loop.abandon(lost)
            return lost
        log.warning("%s: %s", failed, where(error))  # not its text, which may hold a prompt
        if is_out_of_memory(error):
            self.tally.out_of_memory += 1
            return OutOfMemory("the request does not fit into memory")
        return JobFailed(failed)

    async def _fetch(self, job: Job) -> StartLatent:
        began_s = time.monotonic()
        fetched = Fetched(None, FetchReason.MISSING)
        if job.source is not None:
            own, skipped = self._latents.own is not None, job.level.skipped_steps
            limit_s = fetch_limit_s(self._step_loop.state, skipped, from_own_store=own)
            fetched = await self._latents.fetch(job, job.source, limit_s)
        return replace(to_start(fetched, job.level.skipped_steps), fetch_s=time.monotonic() - began_s)

    async def _follow(self, run: JobRun) -> AsyncGenerator[Event, None]:
        yield await self._join(run)
        while True:
            match await run.heard.get():
                case StepDone(step, preview):
                    yield Progress(step, run.request.num_steps)
                    if preview is not None:
                        async for shown in self._show(run, step, preview):
                            yield shown
                case DrawnImages() as drawn:
                    async for event in self._finish(run, drawn):
                        yield event
                    return
                case WorkerError() as error:
                    raise error

    async def _join(self, run: JobRun) -> Joined:
        """Wait for a place in the batch, within the job's budget."""
        try:
            async with asyncio.timeout(run.job.seconds_left):
                heard = await run.heard.get()
        except TimeoutError as error:
            raise BudgetSpent("the budget ran out before the first step") from error
        if isinstance(heard, WorkerError):
            raise heard
        self._count_start(run)
        size = 1
        if isinstance(heard, StepEntered):
            size = heard.batch_size
        else:  # no step was left to denoise
            run.heard.put_nowait(heard)
        return run.joined(size)

    def _count_start(self, run: JobRun) -> None:
        started = run.stock.started
        self.tally.steps_skipped += started.step
        if run.job.level.skipped_steps:
            self.tally.latent_starts[started.reason] = self.tally.latent_starts.get(started.reason, 0) + 1

    async def _show(self, run: JobRun, step: int, preview: Tensor) -> AsyncIterator[Event]:
        """Decode a preview, or leave it out: a preview that fails must not end its request."""
        try:
            data = await self._threads.aside(partial(run.stock.preview, preview))
        except Exception as error:
            self.tally.previews_left_out += 1
            failed = self._to_worker_error(error, "a preview was left out")
            if isinstance(failed, EngineLost):
                raise failed from error
        else:
            yield PreviewImage(step, data)

    async def _finish(self, run: JobRun, drawn: DrawnImages) -> AsyncIterator[Event]:
        job, request = run.job, run.request
        self._self_test.count_success()
        if not job.background:
            self._fixed_s += 0.1 * (drawn.encode_s / request.step_cost - self._fixed_s)  # a running average
        size = job.size or self.facts.size
        for data in drawn.files:
            yield Image(data, job.image_format, size.width, size.height)
        # The client has its image by now, so a slow store does not delay it.
        final = drawn.kept.get(job.level.num_inference_steps)
        stored: tuple[StoredLatent, ...] = ()
        held_id = ""
        if job.sink is not None and final is not None:
            if job.holds_latent:
                held_id = self._latents.set_aside(job, final)
            else:
                stored = await self._latents.keep(job, job.sink, final)
        yield run.finished(drawn, stored, held_id)

    def _tell(self, call: Callable[..., object], *args: Any) -> None:
        """Call something in the event loop, from any thread."""
        with suppress(RuntimeError):  # the event loop is closed: nobody listens any more
            self._event_loop.call_soon_threadsafe(call, *args)

    def _deliver_soon(self, deliveries: Deliveries) -> None:
        """The denoise thread calls this, and a request's thread after its last step."""
        self._tell(self._deliver, deliveries)

    def _deliver(self, deliveries: Deliveries) -> None:
        for request, event in deliveries:
            if not request.cancelled and (run := self._runs.get(request)) is not None:
                run.heard.put_nowait(event)
        self._jobs.notify()
