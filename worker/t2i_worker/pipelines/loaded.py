"""A loaded diffusers pipeline for one default image size, and the two places in it where the engine steps in."""

import inspect
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image as PillowImage
from torch import nn

from t2i_policy.image_size import ImageSize
from t2i_runtime.drawing import Drawing, ScaledAdapter
from t2i_runtime.errors import Violation
from t2i_worker.errors import JobInvalid
from t2i_worker.input_images import NO_PICTURES, DecodedImages, fit
from t2i_worker.jobs import Job
from t2i_worker.pipelines.active_parts import PLAIN_MODEL, ActiveParts
from t2i_worker.pipelines.adapters import AdapterLayers
from t2i_worker.pipelines.cuda_graphs import Capture, GraphedForward
from t2i_worker.pipelines.device_memory import meter_for
from t2i_worker.pipelines.guarded_vae import RUN_THREAD, GuardedVae
from t2i_worker.pipelines.hints import hints_for
from t2i_worker.pipelines.image_tasks import ImageTask, Parameters, make_sibling, parameters_of, tasks_of
from t2i_worker.pipelines.ip_adapter_switch import IpAdapterSwitch
from t2i_worker.pipelines.prompt_cuts import CutNotes
from t2i_worker.pipelines.samplers import make_scheduler

FURTHER_PROMPTS = ("prompt_2", "prompt_3", "negative_prompt_2", "negative_prompt_3")
Answer = Callable[[Mapping[str, Any]], Any]


class Denoiser:
    """The module that every step runs. Threads that ask so get their calls answered by someone else."""

    def __init__(self, module: nn.Module, shared: Collection[str]) -> None:
        self.module = module
        self.shared = shared
        self.device: torch.device = next(module.parameters()).device
        self.graphs: GraphedForward | None = None
        self.adapters = AdapterLayers((), {})
        self.ip_adapters = IpAdapterSwitch(module)
        self._lock = threading.Lock()  # a preview may need the denoiser, with other parts than the step loop
        self._real: Callable[..., Any] = module.forward
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
        parameters = inspect.signature(module.forward).parameters
        self._names = [name for name, one in parameters.items() if one.kind in kinds]
        module.forward = self._forward

    @staticmethod
    @contextmanager
    def answered_by(answer: Answer, decodes: Callable[[], None], chance: torch.Generator) -> Iterator[None]:
        """Within it, `answer` gets the arguments by name of each call that this thread makes.

        `decodes` hears when the thread begins to decode, so that no further call will come. `chance` is what the VAE
        draws from where the pipeline gives it none.
        """
        names = ("answer", "decodes", "chance")
        before = {name: getattr(RUN_THREAD, name, None) for name in names}
        RUN_THREAD.answer, RUN_THREAD.decodes, RUN_THREAD.chance = answer, decodes, chance
        try:
            yield
        finally:
            RUN_THREAD.__dict__.update(before)

    def parts_for(self, drawing: Drawing, images: DecodedImages) -> ActiveParts:
        """What of the pool's parts a request asks for, and this module has."""
        shown = images.ip_adapter
        ip_adapter = None if shown is None else ScaledAdapter(shown.component, shown.scale)
        return ActiveParts(self.adapters.of(drawing.adapters), ip_adapter)

    def forward(self, arguments: Mapping[str, Any], parts: ActiveParts = PLAIN_MODEL) -> Any:
        """Run the module itself, with these parts. Graphs are of the plain model."""
        if parts or self.graphs is None:
            return self._run(arguments, parts)
        return self.graphs(arguments)

    def use_graphs(self, capture: Capture) -> GraphedForward:
        """From now on, forwards replay the graphs that are captured in what this returns."""
        if self.graphs is None:
            self.graphs = GraphedForward(self._run, capture)
        return self.graphs

    def _run(self, arguments: Mapping[str, Any], parts: ActiveParts = PLAIN_MODEL) -> Any:
        if not (self.adapters or self.ip_adapters):
            return self._real(**arguments)
        # Compiled code is of the plain model too: each new set of parts would compile for minutes.
        stance = torch.compiler.set_stance("force_eager") if parts else nullcontext()
        with self._lock, stance:
            self.adapters.use(parts.adapters)
            self.ip_adapters.use(parts.ip_adapter)
            return self._real(**arguments)

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        answer: Answer | None = getattr(RUN_THREAD, "answer", None)
        if answer is None:
            return self._real(*args, **kwargs)
        return answer({**dict(zip(self._names, args, strict=False)), **kwargs})


@dataclass(frozen=True, slots=True)
class PromptedPart:
    """What of a guided step has the prompt: half 0 or 1 of the rows of its one call. None: the first of two calls."""

    half: int | None


class LoadedPipeline:
    """`stock` is the diffusers pipeline. Never call it directly while an engine runs; its scheduler is a template."""

    def __init__(
        self, stock: Any, denoiser: str, width: int, height: int, adapters: Mapping[str, str] | None = None
    ) -> None:
        """`adapters`: what `load_adapters` returned."""
        self.stock = stock
        self.width = width
        self.height = height
        self.hints = hints_for(type(stock).__name__)
        module = getattr(stock, denoiser)
        self.device: torch.device = stock.device
        self.dtype: torch.dtype = module.dtype
        self.denoiser = Denoiser(module, self.hints.shared)
        self.vae = GuardedVae(getattr(stock, "vae", None), upcasts=hasattr(stock, "upcast_vae"))
        self.denoiser.adapters = AdapterLayers([module], adapters or {})
        texts = (one for one in stock.components.values() if isinstance(one, nn.Module) and one is not module)
        self._text_adapters = AdapterLayers(texts if adapters else (), adapters or {})
        self.memory = meter_for(self.device)
        self.prompted_part: PromptedPart | None = None  # found out where a level of the pool leaves guidance out
        self.preview_vae: Any = None  # None = previews are decoded by the model's own
        self.texts = threading.Lock()  # a fast tokenizer keeps truncation and padding as state
        self.tasks = tasks_of(stock)
        self.controlled: dict[str, Any] = {}  # pipelines with a ControlNet, by the name of that component
        self.refused_samplers: frozenset[str] = (
            frozenset()
        )  # classes that it makes no schedule with, once they are tried
        self.shown: dict[str, Any] = {}  # pipelines with an IP-Adapter, by the name of that component
        self._siblings: dict[Any, Any] = {}

    def synchronize(self) -> None:
        """Wait for the device: CUDA calls return before it has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def scheduler_name(self) -> str:
        return type(self.stock.scheduler).__name__

    def stock_for(self, images: DecodedImages) -> Any:
        """The pipeline that draws from these images: `stock` itself or a sibling on the same components."""
        base = self.stock if images.ip_adapter is None else self.shown[images.ip_adapter.component]
        if images.control is not None:
            return self._controlled(images.control.component, base)
        task = self.tasks.task_for(images.used)
        kind = type(self.stock) if task is None else task.kind
        if (kind, base) not in self._siblings:
            self._siblings[kind, base] = make_sibling(kind, base)
        return self._siblings[kind, base]

    def _controlled(self, name: str, base: Any) -> Any:
        made = self.controlled[name]
        if base is self.stock:
            return made
        if (name, base) not in self._siblings:
            self._siblings[name, base] = make_sibling(type(made), base, controlnet=made.controlnet)
        return self._siblings[name, base]

    def fitted(self, job: Job) -> DecodedImages:
        """The job's images in the size that is drawn; as they are for editing models, which scale them themselves."""
        images, task = job.images, self.tasks.task_for(job.images.used)
        if task is None or task.edits or images.init is None:
            return images
        size = self._size(job)
        return replace(images, init=fit(images.init, *size), mask=images.mask and fit(images.mask, *size))

    def sample_images(self, asked: ImageSize | None = None) -> DecodedImages:
        """For images of our own: none, unless the model does nothing without."""
        return self.sample_for(self.tasks.tasks[0], asked) if self.tasks.always else NO_PICTURES

    def sample_for(self, task: ImageTask, asked: ImageSize | None = None) -> DecodedImages:
        """The least that a task draws from, with all of its steps."""
        size = asked or (self.width, self.height)
        gray = PillowImage.new("RGB", size, "gray")
        white = PillowImage.new("L", size, "white") if "mask" in task.needs else None
        return DecodedImages(gray, white, strength=1.0 if "strength" in task.takes else None)

    def arguments(self, job: Job) -> dict[str, Any]:
        """What `__call__` gets for this job, the generator excepted.

        Raises:
            JobInvalid: the pipeline takes no such images or negative prompt, or lacks an argument.
        """
        violations = [*self._image_violations(job.images)]
        if violations:
            raise JobInvalid(violations)
        task, kind = self.tasks.task_for(job.images.used), type(self.stock_for(job.images))
        takes = parameters_of(kind)
        violations += [
            Violation(f"drawing.arguments[{name!r}]", f"{kind.__name__} takes no such argument; leave it out")
            for name in job.drawing.arguments
            if name not in takes
        ]
        if job.negative_prompt and (problem := self._negative_problem(job, kind.__name__, takes)):
            violations.append(Violation("negative_prompt", problem))
        width, height = self._size(job)
        steps = job.level.num_inference_steps
        known: dict[str, Any] = {
            "prompt": job.prompt,
            "width": width,
            "height": height,
            "max_area": width * height,
            "num_inference_steps": steps,
            self.hints.guidance: job.guidance_scale,
            "output_type": "np",
            "use_resolution_binning": False,  # PixArt and Sana would draw a size near to the asked one, and resize
        }
        if job.negative_prompt:
            known["negative_prompt"] = job.negative_prompt
        if (control := job.images.control) is not None:
            known["control_image" if "control_image" in takes else "image"] = control.picture
            known["controlnet_conditioning_scale"] = control.scale
        if job.images.ip_adapter is not None:
            known["ip_adapter_image"] = job.images.ip_adapter.picture
            if "ip_adapter_image" not in takes:
                problem = f"{kind.__name__} takes none; leave it out, or the images beside it"
                violations.append(Violation("drawing.images.ip_adapter_images", problem))
        if task is not None:
            known |= self._image_arguments(task, job.images)
        if violations:
            raise JobInvalid(violations)
        return {name: value for name, value in known.items() if name in takes} | dict(job.drawing.arguments)

    def _size(self, job: Job) -> tuple[int, int]:
        return job.size or (self.width, self.height)

    def _image_arguments(self, task: ImageTask, images: DecodedImages) -> dict[str, Any]:
        looked_at = [one for one in (images.init, *images.references) if one is not None]
        several = task.edits and self.hints.references > 1
        given: dict[str, Any] = {"image": looked_at if several else looked_at[0]}
        given |= {"mask_image": images.mask, "strength": images.strength}
        return {name: value for name, value in given.items() if value is not None}

    def _image_violations(self, images: DecodedImages) -> Iterator[Violation]:
        name, place = type(self.stock).__name__, "drawing.images"
        if images.control is not None:
            return  # known parts were checked before, and no image to start from comes with it
        if not images.used:
            if self.tasks.always:
                for field in sorted(self.tasks.tasks[0].needs or {"init_image"}):
                    yield Violation(f"{place}.{field}", f"{name} draws from images only; {self.tasks}")
            return
        task = self.tasks.task_for(images.used)
        if task is None:
            for field in self.tasks.wrong(images.used):
                yield Violation(f"{place}.{field}", f"{name} cannot draw from these; {self.tasks}")
        elif task.edits and (images.init is not None) + len(images.references) > self.hints.references:
            yield Violation(f"{place}.reference_images", f"{name} looks at {self.hints.references} at most")

    def _negative_problem(self, job: Job, name: str, takes: Parameters) -> str | None:
        if "negative_prompt" not in takes:
            return f"{name} takes no negative prompt; leave it out"
        if self.hints.needs_true_cfg and not float(job.drawing.arguments.get("true_cfg_scale", 1.0)) > 1:
            return f"{name} reads a negative prompt only with drawing.arguments['true_cfg_scale'] above 1"
        return None

    def notes(self, job: Job) -> CutNotes:
        most: Any = None
        if self.hints.drops_text:
            name = "max_sequence_length"
            most = job.drawing.arguments.get(name, parameters_of(type(self.stock))[name].default)
        given = job.drawing.arguments
        further = {name: given[name] for name in FURTHER_PROMPTS if name in given}
        return CutNotes(job.prompt, job.negative_prompt, most, further)

    def use_in_texts(self, drawing: Drawing) -> None:
        """The text encoders run with its adapters from now on. The caller holds `texts`."""
        self._text_adapters.use(self._text_adapters.of(drawing.adapters))

    def scheduler(self, job: Job) -> Any:
        """The noise scheduler of this job, a template.

        Raises:
            JobInvalid: the job names one that does not suit the model.
        """
        own = self.stock.scheduler
        if job.drawing.sampler:
            return make_scheduler(job.drawing.sampler, own, refused=self.refused_samplers)
        return make_scheduler(job.level.solver, own, "level.solver") if job.level.solver else own
