"""The diffusion engine: one warm model behind the step loop.

What happens to a job:

1. encode its texts and fetch its start latent, at the same time (`_prepare`),
2. join the batch and step until the schedule ends (`_denoise`),
3. decode and encode the image, then keep latents for later prompts (`_finish`).

Only the steps run in the denoise thread, so the device never waits for text, pixels or files.
An exception in any of these threads ends its own request, with an error of `errors`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from t2i_cache.fetching import Fetched, FetchReason
from t2i_policy.level import Level
from t2i_policy.readiness import EngineSigns, Readiness, judge_readiness
from t2i_worker.engine.accepted_jobs import AcceptedJobs
from t2i_worker.engine.decoding import Decoder
from t2i_worker.engine.request import Deliveries, Denoised, RunningRequest, StepDone, StepEntered, StepEvent, StepFailed
from t2i_worker.engine.self_test import SelfTest
from t2i_worker.engine.side_threads import SideThreads
from t2i_worker.engine.step_loop import StepLoop
from t2i_worker.engine.warm_up import WarmUpTimes
from t2i_worker.errors import (
    BudgetSpent,
    EngineLost,
    JobFailed,
    WorkerError,
    WorkerUnready,
    where,
)
from t2i_worker.jobs import (
    Event,
    Finished,
    Image,
    Job,
    Joined,
    Load,
    ModelFacts,
    PreviewImage,
    Progress,
    PromptCut,
    Tally,
)
from t2i_worker.latents import LatentCache, StartLatent, to_start
from t2i_worker.pipelines import Conditions, NoiseSchedule, PipelineAdapter

log = logging.getLogger(__name__)
MIN_FETCH_LIMIT_S = 0.05  # on small models a step is shorter than a disk read
STOP_LIMIT_S = 10.0
TEST_STEPS = 2  # the self-test runs the last steps of the pool's schedule


@dataclass(slots=True)
class _Run:
    """A job that is being served. `served` is the level that really runs, `reason` a FetchReason."""

    job: Job
    served: Level
    reason: str
    accepted_s: float
    fetch_s: float
    cuts: tuple[PromptCut, ...] = ()
    running: RunningRequest = field(init=False)
    events: asyncio.Queue[StepEvent] = field(init=False)
    denoise_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _EncodedTexts:
    conditions: Conditions
    cuts: tuple[PromptCut, ...]


class DiffusionEngine:
    """Create it inside a running event loop."""

    def __init__(
        self,
        adapter: PipelineAdapter,
        facts: ModelFacts,
        times: WarmUpTimes,
        latents: LatentCache,
        queue_cap: int | None = None,
    ) -> None:
        self.facts = facts
        self.tally = Tally(store=latents.health, latents_not_kept=latents.not_kept)
        self.own_latents = latents.own
        self._adapter = adapter
        self._latents = latents
        self._fixed_s = times.fixed_s
        self._queue_cap = max(4, times.batch_cap) if queue_cap is None else queue_cap
        self._jobs = AcceptedJobs()
        self._event_loop = asyncio.get_running_loop()
        self._threads = SideThreads(adapter.device, self.tally, self._on_lost)
        self._decoder = Decoder(adapter, self.tally)
        self._step_loop = StepLoop(adapter, times.batch_cap, times.step_s, self._deliver_soon, self.tally)
        self._step_loop.start()
        self._self_test = SelfTest(self._draw_test, self._jobs.notify, self.tally)

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
            step_age_s=self._step_loop.step_age_s,
            encode_age_s=self._threads.age_s,
        )

    async def changed(self) -> None:
        await self._jobs.changed()

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        # The cap is read for each job, because running out of memory lowers it.
        with self._jobs.taken(self._step_loop.state.batch_cap + self._queue_cap):
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
                failed = JobFailed("the worker failed on this request")
                # Log only the place: the text of an exception may hold a prompt.
                log.error("a bug ended a request: %s", where(error))  # noqa: TRY400
                self._self_test.count_failure(job.request_id or str(id(job)), failed)
                raise failed from error

    async def _draw(self, job: Job) -> AsyncGenerator[Event, None]:
        run = await self._prepare(job)
        try:
            self._step_loop.submit(run.running)
            async for event in self._denoise(run):
                yield event
            async for event in self._finish(run):
                yield event
        finally:
            # When the caller closes the generator, the request must leave the batch too.
            self._step_loop.cancel(run.running)

    async def _draw_test(self) -> None:
        """Run the last steps of an ordinary schedule and decode the result.

        Unit noise serves as the latent that enters them, because its size is about right there.
        """
        facts = self.facts
        steps = facts.num_inference_steps
        level = Level(max(0, steps - TEST_STEPS), steps)
        job = Job(
            request_id="self-test",
            prompt="a photo",
            negative_prompt="",
            seed=0,
            guidance_scale=facts.guidance_scale,
            level=level,
            image_format="png",
        )
        text = await self._threads.for_texts(partial(self._encode, job))
        start = await self._threads.for_texts(partial(self._adapter.initial_latent, 0))
        unstarted = _Run(job, level, reason="", accepted_s=time.monotonic(), fetch_s=0.0)
        run = await self._threads.for_texts(partial(self._to_run, unstarted, start, text.conditions))
        try:
            self._step_loop.submit(run.running)
            async for _ in self._denoise(run):
                pass
            await self._threads.for_pixels(partial(self._decoder.to_image, run.running.latent, job.image_format))
        finally:
            self._step_loop.cancel(run.running)

    async def drain(self) -> None:
        await self._jobs.drain()

    async def close(self) -> None:
        self._jobs.draining = True
        await self._self_test.close()
        await asyncio.to_thread(self._step_loop.stop, STOP_LIMIT_S)
        self._threads.close()
        await self._latents.close()

    async def _prepare(self, job: Job) -> _Run:
        """Encode the texts and fetch the start at the same time, within the job's budget."""
        accepted_s = time.monotonic()
        limit_s = None if job.deadline_s is None else max(0.0, job.deadline_s - accepted_s)
        try:
            async with asyncio.timeout(limit_s):
                text, start = await asyncio.gather(
                    self._threads.for_texts(partial(self._encode, job)), self._fetch(job)
                )
        except TimeoutError as error:
            raise BudgetSpent("the budget ran out before the first step") from error
        served = replace(job.level, skipped_steps=start.step)
        unstarted = _Run(job, served, start.reason, accepted_s, start.fetch_s, text.cuts)
        run = await self._threads.for_texts(partial(self._to_run, unstarted, start.latent, text.conditions))
        self._count_start(job, served, start.reason)
        return run

    def _encode(self, job: Job) -> _EncodedTexts:
        conditions = self._adapter.encode(job.prompt, job.negative_prompt, job.guidance_scale)
        # Without guidance no encoder reads the negative prompt, so it cannot be cut.
        read_negative = job.negative_prompt if conditions.unprompted is not None else ""
        return _EncodedTexts(conditions, self._adapter.cuts(job.prompt, read_negative))

    async def _fetch(self, job: Job) -> StartLatent:
        began_s = time.monotonic()
        if not job.level.skipped_steps:
            return StartLatent(None, 0, FetchReason.AS_REQUESTED)
        fetched = Fetched(None, FetchReason.MISSING)
        if job.source is not None:
            fetched = await self._latents.fetch(job, job.source, self._fetch_limit_s())
        start = to_start(fetched, self._adapter.latent_shape, self._adapter.dtype)
        return replace(start, fetch_s=time.monotonic() - began_s)

    def _fetch_limit_s(self) -> float:
        """One step, beyond the time that the job waits for a place in the batch anyway."""
        state = self._step_loop.state
        step_s = state.step_s[-1] if state.step_s else 0.0
        return max(MIN_FETCH_LIMIT_S, step_s) + state.steps_to_place * step_s

    def _to_run(self, run: _Run, start: Tensor | None, conditions: Conditions) -> _Run:
        job, served = run.job, run.served
        schedule = self._adapter.schedule(served.num_inference_steps, served.skipped_steps, job.seed)
        if start is None:
            start = self._adapter.initial_latent(job.seed) * schedule.initial_scale
        else:
            start = self._with_own_noise(start, run, schedule)
        run.events = asyncio.Queue(served.num_inference_steps + 8)  # an event a step, and a few for joining and the end
        run.running = RunningRequest(
            latent=start.to(self._adapter.device),
            step=served.skipped_steps,
            num_steps=served.num_inference_steps,
            schedule=schedule,
            conditions=conditions,
            deliver=run.events.put_nowait,
            deadline_s=job.deadline_s,
            keep=self._steps_to_keep(job, served),
            preview_every_steps=job.preview_every_steps,
        )
        return run

    def _with_own_noise(self, start: Tensor, run: _Run, schedule: NoiseSchedule) -> Tensor:
        """Replace the other run's noise in a fetched latent with the noise of this job's seed.

        Without this, all images that start from one latent would look alike. A sampler that draws noise at each step
        varies them by itself, and by then little is left of its first noise.
        """
        theirs = None if run.job.source is None else run.job.source.seed
        if theirs is None or theirs == run.job.seed or self._adapter.draws_noise:
            return start
        change = self._adapter.initial_latent(run.job.seed) - self._adapter.initial_latent(theirs)
        return start + schedule.noise_at(change.to(start.device), run.served.skipped_steps)

    def _steps_to_keep(self, job: Job, served: Level) -> frozenset[int]:
        """Keep latents of full exact runs only: a latent of a resumed run would drift from its prompt."""
        exact = Level(0, self.facts.num_inference_steps)
        return frozenset(job.sink.steps) if job.sink is not None and served == exact else frozenset()

    def _count_start(self, job: Job, served: Level, reason: str) -> None:
        self.tally.steps_skipped += served.skipped_steps
        if job.level.skipped_steps:
            self.tally.latent_starts[reason] = self.tally.latent_starts.get(reason, 0) + 1

    async def _denoise(self, run: _Run) -> AsyncIterator[Event]:
        while True:
            event = await run.events.get()
            match event:
                case StepEntered(batch_size):
                    yield Joined(run.served, run.reason, batch_size, prompt_cuts=run.cuts)
                case StepDone(step, preview):
                    yield Progress(step, run.served.num_inference_steps)
                    if preview is not None:
                        async for shown in self._show(step, preview):
                            yield shown
                case Denoised(denoise_s):
                    run.denoise_s = denoise_s
                    return
                case StepFailed(error):
                    raise error

    async def _show(self, step: int, preview: Tensor) -> AsyncIterator[Event]:
        """Decode a preview, or leave it out: a preview that fails must not end its request."""
        try:
            data = await self._threads.for_pixels(partial(self._decoder.to_preview, preview))
        except JobFailed as error:
            self.tally.previews_left_out += 1
            log.warning("a preview was left out: %s", error)
        else:
            yield PreviewImage(step, data)

    async def _finish(self, run: _Run) -> AsyncIterator[Event]:
        began_s = time.monotonic()
        image_format = run.job.image_format
        data = await self._threads.for_pixels(partial(self._decoder.to_image, run.running.latent, image_format))
        self._self_test.count_success()
        encode_s = time.monotonic() - began_s
        self._fixed_s += 0.1 * (encode_s - self._fixed_s)  # a running average
        yield Image(data, image_format, self.facts.width, self.facts.height)
        # The client has its image by now, so a slow store does not delay it.
        stored = await self._latents.keep(run.job, run.job.sink, run.running.kept) if run.job.sink else ()
        wait_s = (run.running.joined_s or run.accepted_s) - run.accepted_s
        yield Finished(
            served=run.served,
            wait_ms=1e3 * wait_s,
            denoise_ms=1e3 * run.denoise_s,
            encode_ms=1e3 * encode_s,
            fetch_ms=1e3 * run.fetch_s,
            stored=stored,
        )

    def _on_lost(self, error: EngineLost) -> None:
        self._step_loop.abandon(error)
        self._jobs.notify()

    def _deliver_soon(self, deliveries: Deliveries) -> None:
        """The denoise thread calls this."""
        with suppress(RuntimeError):  # the event loop is closed: nobody listens any more
            self._event_loop.call_soon_threadsafe(self._deliver, deliveries)

    def _deliver(self, deliveries: Deliveries) -> None:
        for running, event in deliveries:
            if not running.cancelled:
                running.deliver(event)
        self._jobs.notify()
