"""The VAE that all requests share: one thread at a time, in a type that does not overflow, in memory that suffices."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from t2i_worker.device_errors import free_memory, is_out_of_memory
from t2i_worker.errors import NotFinite
from t2i_worker.jobs import Tally

log = logging.getLogger(__name__)
RUN_THREAD = threading.local()  # what the run of this thread wants to hear and to draw from


class GuardedVae:
    """Runs the VAE for one thread at a time, in fp32 where its own precision overflows.

    All requests share it, so none may convert it: some pipelines want it in fp32 to encode an image, and back. It is
    then, while it encodes for them and nobody else is in it.

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
            vae.to(torch.float32)  # the stock pipeline does so for each image
        vae.to = self._wish
        vae.decode = self._decode
        if hasattr(vae, "encode"):
            vae.encode = self._encode

    def _wish(self, *args: Any, **kwargs: Any) -> Any:
        """In place of `to`: this thread's images are to be encoded in this type."""
        given = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.dtype)]
        RUN_THREAD.encodes_in = given[0] if given else None
        return self._vae

    def _encode(self, pixels: Tensor, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            own, wished = self._vae.dtype, getattr(RUN_THREAD, "encodes_in", None)
            if wished is torch.float32:
                nn.Module.to(self._vae, wished)
            try:
                encoded = self._real_encode(pixels.to(self._vae.dtype), *args, **kwargs)
            finally:
                if self._vae.dtype != own:
                    nn.Module.to(self._vae, own)
        # SD3's ControlNet pipeline draws from what the whole process draws from: no seed would give its image again.
        spread: Any = encoded[0] if isinstance(encoded, tuple) else getattr(encoded, "latent_dist", None)
        if hasattr(spread, "sample") and (chance := getattr(RUN_THREAD, "chance", None)) is not None:
            sample = spread.sample
            spread.sample = lambda generator=None: sample(chance if generator is None else generator)
        return encoded

    def _decode(self, latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        if (decodes := getattr(RUN_THREAD, "decodes", None)) is not None:
            decodes()
        if not _is_finite(latents):
            raise NotFinite("the model produced values that are not finite for this request")
        with self._lock:
            decoded = self._decode_again_if_full(latents, args, kwargs)
            if _is_finite(_pixels(decoded)):
                return decoded
            return self._decode_in_fp32(latents, args, kwargs)

    def _decode_again_if_full(self, latents: Tensor, args: Any, kwargs: Any) -> Any:
        """Out of memory: once more after memory is freed, then in tiles. Their seams may show, so they come last."""
        ways: list[Callable[[], AbstractContextManager[None]]] = [nullcontext, nullcontext]
        if hasattr(self._vae, "enable_tiling"):
            ways.append(self._in_tiles)
        for number, way in enumerate(ways, 1):
            try:
                with way():
                    return self._real_decode(latents.to(self._vae.dtype), *args, **kwargs)
            except Exception as error:
                if not is_out_of_memory(error) or number == len(ways):
                    raise
            self.tally.out_of_memory += 1
            free_memory()
        raise AssertionError("the last way returns or raises")

    @contextmanager
    def _in_tiles(self) -> Iterator[None]:
        log.warning("an image does not fit the VAE's memory: it is decoded in tiles, whose seams may show")
        self._vae.enable_tiling()
        try:
            yield
        finally:
            self._vae.disable_tiling()

    def _decode_in_fp32(self, latents: Tensor, args: Any, kwargs: Any) -> Any:
        """Repeat the decode in fp32; if that helps, the VAE stays in fp32."""
        used = self._vae.dtype
        if used != torch.float32:
            self.tally.decode_fallbacks += 1
            nn.Module.to(self._vae, torch.float32)
            decoded = self._real_decode(latents.float(), *args, **kwargs)
            if _is_finite(_pixels(decoded)):
                log.warning("the VAE overflows in %s; it runs in fp32 from now on", used)
                return decoded
            nn.Module.to(self._vae, used)
        raise NotFinite("the decoder produced pixels that are not finite for this request")


def _pixels(decoded: Any) -> Tensor:
    pixels: Tensor = decoded[0] if isinstance(decoded, tuple) else decoded.sample
    return pixels


def _is_finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _has_none(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("this VAE has no encoder")
