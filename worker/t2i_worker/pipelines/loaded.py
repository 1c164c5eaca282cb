"""A loaded diffusers pipeline for one default image size, and the two places in it where the engine steps in."""

import inspect
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from t2i_runtime.errors import Violation
from t2i_worker.device_errors import free_memory, is_out_of_memory
from t2i_worker.errors import JobInvalid, NotFinite
from t2i_worker.jobs import Job, PromptCut, Tally
from t2i_worker.pipelines.hints import hints_for
from t2i_worker.pipelines.prompt_cuts import TextLimit, limits_of

log = logging.getLogger(__name__)
_here = threading.local()
Answer = Callable[[Mapping[str, Any]], Any]


class Denoiser:
    """The module that every step runs. Threads that ask so get their calls answered by someone else."""

    def __init__(self, module: nn.Module, shared: Collection[str]) -> None:
        self.shared = shared
        self.device: torch.device = next(module.parameters()).device
        self._real: Callable[..., Any] = module.forward
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
        parameters = inspect.signature(module.forward).parameters
        self._names = [name for name, one in parameters.items() if one.kind in kinds]
        module.forward = self._forward

    @staticmethod
    @contextmanager
    def answered_by(answer: Answer, decodes: Callable[[], None]) -> Iterator[None]:
        """Within it, `answer` gets the arguments by name of each call that this thread makes.

        `decodes` hears when the thread begins to decode, so that no further call will come.
        """
        before = getattr(_here, "answer", None), getattr(_here, "decodes", None)
        _here.answer, _here.decodes = answer, decodes
        try:
            yield
        finally:
            _here.answer, _here.decodes = before

    def forward(self, arguments: Mapping[str, Any]) -> Any:
        """Run the module itself."""
        return self._real(**arguments)

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        answer: Answer | None = getattr(_here, "answer", None)
        if answer is None:
            return self._real(*args, **kwargs)
        return answer({**dict(zip(self._names, args, strict=False)), **kwargs})


class GuardedVae:
    """Runs the VAE for one thread at a time, in fp32 where its own precision overflows.

    `tally` counts decodes that were not finite and were repeated in fp32, and those that did not fit at first.
    """

    def __init__(self, vae: Any, upcasts: bool) -> None:
        self.tally = Tally()
        self._vae = vae
        self._lock = threading.RLock()
        if vae is None:
            return
        self._real_decode: Callable[..., Any] = vae.decode
        self._real_encode: Callable[..., Any] = getattr(vae, "encode", _has_none)
        if upcasts and vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False):
            vae.to(torch.float32)  # the stock pipeline does so for each image, and two threads would disturb each other
        vae.decode = self._decode
        if hasattr(vae, "encode"):
            vae.encode = self._encode

    def _encode(self, pixels: Tensor, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return self._real_encode(pixels.to(self._vae.dtype), *args, **kwargs)

    def _decode(self, latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        if (decodes := getattr(_here, "decodes", None)) is not None:
            decodes()
        if not _is_finite(latents):
            raise NotFinite("the model produced values that are not finite for this request")
        with self._lock:
            decoded = self._decode_again_if_full(latents, args, kwargs)
            if _is_finite(_pixels(decoded)):
                return decoded
            return self._decode_in_fp32(latents, args, kwargs)

    def _decode_again_if_full(self, latents: Tensor, args: Any, kwargs: Any) -> Any:
        try:
            return self._real_decode(latents.to(self._vae.dtype), *args, **kwargs)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        self.tally.out_of_memory += 1
        free_memory()
        return self._real_decode(latents.to(self._vae.dtype), *args, **kwargs)

    def _decode_in_fp32(self, latents: Tensor, args: Any, kwargs: Any) -> Any:
        """Repeat the decode in fp32; if that helps, the VAE stays in fp32."""
        used = self._vae.dtype
        if used != torch.float32:
            self.tally.decode_fallbacks += 1
            self._vae.to(torch.float32)
            decoded = self._real_decode(latents.float(), *args, **kwargs)
            if _is_finite(_pixels(decoded)):
                log.warning("the VAE overflows in %s; it runs in fp32 from now on", used)
                return decoded
            self._vae.to(used)
        raise NotFinite("the decoder produced pixels that are not finite for this request")


class LoadedPipeline:
    """`stock` is the diffusers pipeline. Never call it directly while an engine runs; its scheduler is a template."""

    def __init__(self, stock: Any, denoiser: str, width: int, height: int) -> None:
        self.stock = stock
        self.width = width
        self.height = height
        self.hints = hints_for(type(stock).__name__)
        module = getattr(stock, denoiser)
        self.device: torch.device = stock.device
        self.dtype: torch.dtype = module.dtype
        self.denoiser = Denoiser(module, self.hints.shared)
        self.vae = GuardedVae(getattr(stock, "vae", None), upcasts=hasattr(stock, "upcast_vae"))
        self.texts = threading.Lock()  # a fast tokenizer keeps truncation and padding as state
        self._parameters = inspect.signature(type(stock).__call__).parameters
        self._limits: tuple[TextLimit, ...] = tuple(limits_of(stock, self._parameters))

    @property
    def scheduler_name(self) -> str:
        return type(self.stock.scheduler).__name__

    def arguments(self, job: Job) -> dict[str, Any]:
        """What `__call__` gets for this job, the generator excepted.

        Raises:
            JobInvalid: the pipeline takes no negative prompt, or lacks an argument.
        """
        violations = [
            Violation(name, f"{type(self.stock).__name__} takes no such argument")
            for name in job.extra
            if name not in self._parameters
        ]
        if job.negative_prompt and (problem := self._negative_problem(job)):
            violations.append(Violation("negative_prompt", problem))
        if violations:
            raise JobInvalid(violations)
        width, height = job.size or (self.width, self.height)
        known = {
            "prompt": job.prompt,
            "width": width,
            "height": height,
            "num_inference_steps": job.level.num_inference_steps,
            self.hints.guidance: job.guidance_scale,
            "output_type": "np",
        }
        if job.negative_prompt:
            known["negative_prompt"] = job.negative_prompt
        return {name: value for name, value in known.items() if name in self._parameters} | dict(job.extra)

    def _negative_problem(self, job: Job) -> str | None:
        name = type(self.stock).__name__
        if "negative_prompt" not in self._parameters:
            return f"{name} takes no negative prompt"
        if self.hints.needs_true_cfg and not float(job.extra.get("true_cfg_scale", 1.0)) > 1:  # type: ignore[arg-type]
            return f"{name} reads a negative prompt only with a true_cfg_scale above 1"
        return None

    def cuts(self, prompt: str, negative_prompt: str) -> tuple[PromptCut, ...]:
        """Where encoders stop reading, for those that do not read the whole text. Any thread may call it."""
        texts = ((prompt, False), (negative_prompt, True))
        found = [limit.cut(text, negative) for text, negative in texts if text for limit in self._limits]
        return tuple(cut for cut in found if cut is not None)


def _pixels(decoded: Any) -> Tensor:
    pixels: Tensor = decoded[0] if isinstance(decoded, tuple) else decoded.sample
    return pixels


def _is_finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _has_none(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("this VAE has no encoder")
