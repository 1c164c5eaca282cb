"""Tell callers where a text encoder stops reading, because the stock pipelines cut longer texts silently.

A pipeline's tokenizer keeps settings that change with each call. So each limit owns a copy of the tokenizer that
never changes, and any thread may ask it. Token counts leave out the special tokens that an encoder adds.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

from t2i_worker.jobs import PromptCut


class TextLimit:
    """The limit of one encoder. `max_tokens` counts special tokens too, as the pipelines do."""

    def __init__(self, encoder: str, tokenizer: Any, max_tokens: int) -> None:
        self.encoder = encoder
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._most = max(0, max_tokens - tokenizer.num_special_tokens_to_add())

    def cut(self, text: str, negative: bool = False) -> PromptCut | None:
        """Where the encoder stops; None if it reads the whole text."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        if len(offsets) <= self._most:
            return None
        kept_characters = offsets[self._most - 1][1] if self._most else 0
        return PromptCut(self.encoder, self._most, len(offsets), kept_characters, negative)


def limits_of(pipeline: Any, parameters: Mapping[str, Any]) -> Iterator[TextLimit]:
    """The limit of each text encoder that reads the prompt as it is; `parameters` are those of `__call__`.

    CLIP reads what its tokenizer allows, T5 as many tokens as the pipeline's `max_sequence_length`. Encoders that wrap
    the prompt in a conversation are left out, because their counts would be wrong.
    """
    for name, tokenizer in pipeline.components.items():
        if not name.startswith("tokenizer") or getattr(tokenizer, "backend_tokenizer", None) is None:
            continue  # a tokenizer that is written in Python does not report character offsets
        kind = type(getattr(pipeline, name.replace("tokenizer", "text_encoder"), None)).__name__
        most = tokenizer.model_max_length
        if "T5" in kind and "max_sequence_length" in parameters:
            most = parameters["max_sequence_length"].default
        elif "max_caption_tokens" in pipeline.config:
            most = pipeline.config.max_caption_tokens
        elif "CLIP" not in kind:
            continue
        yield TextLimit(name.replace("tokenizer", "text_encoder"), tokenizer, most)
