"""Final latents become image files, in the encoder threads. Values that are not finite never become an image."""

import threading

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from t2i_worker.device_errors import free_memory, is_out_of_memory
from t2i_worker.errors import NotFinite
from t2i_worker.images import encode_image, encode_preview
from t2i_worker.jobs import ImageFormat, Tally
from t2i_worker.pipelines import PipelineAdapter


class Decoder:
    def __init__(self, adapter: PipelineAdapter, tally: Tally) -> None:
        self._adapter = adapter
        self._tally = tally
        self._lock = threading.Lock()

    def to_image(self, latent: Tensor, image_format: ImageFormat) -> bytes:
        """Decode and encode a final latent [1, ...].

        Raises:
            NotFinite: the latent is not finite, or its pixels are not, even at full precision.
        """
        return encode_image(self._decode(latent), image_format)

    def to_preview(self, latent: Tensor) -> bytes:
        """Like `to_image`, but a small webp."""
        return encode_preview(self._decode(latent))

    def _decode(self, latent: Tensor) -> npt.NDArray[np.uint8]:
        with torch.inference_mode():
            if not bool(torch.isfinite(latent).all()):
                raise NotFinite("the model produced values that are not finite for this request")
            try:
                return self._adapter.decode(latent)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            finally:
                self._tally.decode_fallbacks = self._adapter.decode_fallbacks
            # Try once more, alone and with freed memory: two decodes at once may not fit where one does.
            with self._lock:
                self._tally.out_of_memory += 1
                free_memory()
                return self._adapter.decode(latent)
