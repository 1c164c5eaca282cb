"""Where text encoders stop reading: told for each encoder of each family, at the character where the pipeline cuts."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.jobs import PromptCut
from t2i_worker.pipelines.prompt_cuts import CutNotes

WORDS = "red circle left of the blue square "
LONG = WORDS * 100
#: What each encoder reads, in tokens without special ones. T5 and language models read what the pipeline gives them;
#: those of the last rows get the prompt inside a conversation or behind an instruction.
READ = {
    "sd21": {"text_encoder": 38},
    "sdxl": {"text_encoder": 38, "text_encoder_2": 38},
    "sd3": {"text_encoder": 38, "text_encoder_2": 38, "text_encoder_3": 255},
    "flux-dev": {"text_encoder": 38, "text_encoder_2": 511},
}

WRAPPED = {
    "qwen-image": {"text_encoder": 512},
    "z-image": {"text_encoder": 506},
    "sana": {"text_encoder": 298},
    "lumina2": {"text_encoder": 92},
    "hunyuan-image": {"text_encoder": 885},
    "flux2-klein": {"text_encoder": 506},
    "kandinsky5": {"text_encoder": 376, "text_encoder_2": 75},
}


class _Stopped(Exception):
    pass


class Reader:
    """What the encoders of a tiny model make of a prompt: the arguments of its denoiser's first call."""

    def __init__(self, engine: TinyEngine) -> None:
        self.engine = engine

    def read(self, request: TinyRequest, notes: CutNotes | None = None) -> dict[str, Any]:
        pipeline = self.engine.pipeline
        calls: list[dict[str, Any]] = []

        def stop(arguments: Any) -> None:
            calls.append({name: _bytes(value) for name, value in arguments.items()})
            raise _Stopped

        arguments = pipeline.arguments(self.engine.job(request))
        with pytest.raises(_Stopped):
            StockCall(pipeline, arguments, stop, notes=notes).draw(0)
        return calls[0]

    def cuts(self, prompt: str, negative: str = "", **changes: Any) -> dict[str, PromptCut]:
        request = TinyRequest(prompt=prompt, negative=negative, **changes)
        notes = self.engine.pipeline.notes(self.engine.job(request))
        self.read(request, notes)
        return {f"{'-' if cut.negative else ''}{cut.encoder}": cut for cut in notes.cuts}


def _bytes(value: Any) -> Any:
    """Values in place of tensors, so that equal calls are equal."""
    if hasattr(value, "numpy"):
        return value.float().numpy().tobytes()
    if isinstance(value, list | tuple):
        return [_bytes(one) for one in value]
    return {name: _bytes(one) for name, one in value.items()} if isinstance(value, dict) else value


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reader]:
    return cache(lambda name: Reader(TinyEngine(name, save_family(name, tmp_path_factory.mktemp("cuts") / name))))


@pytest.mark.parametrize("name", [*READ, *WRAPPED])
def test_what_is_told_is_what_the_pipeline_reads(name: str, reader: Callable[[str], Reader]) -> None:
    """Beyond the character where the last encoder stops nothing changes an image; before it all words do."""
    cuts = reader(name).cuts(LONG)
    end = max(cut.kept_characters for cut in cuts.values())
    whole = reader(name).read(TinyRequest(prompt=LONG))
    assert reader(name).read(TinyRequest(prompt=f"{LONG[: end + 1]}and nothing else {WORDS * 20}")) == whole
    if name != "qwen-image":  # the tiny tokenizer reads its template in more tokens than the pipeline then leaves out
        assert reader(name).read(TinyRequest(prompt=f"{LONG[: end - 8]}{LONG[end:]}")) != whole


@pytest.mark.parametrize("name", [*READ, *WRAPPED])
def test_each_encoder_that_stops_is_told(name: str, reader: Callable[[str], Reader]) -> None:
    """With its own limit, and nothing where all was read."""
    cuts = reader(name).cuts(LONG)
    assert {encoder: cut.kept_tokens for encoder, cut in cuts.items()} == (READ | WRAPPED)[name]
    assert reader(name).cuts("red circle") == {}


def test_length_that_a_request_sets_is_its_limit(reader: Callable[[str], Reader]) -> None:
    """A shorter one cuts more, and that is told too."""
    cut = reader("flux-dev").cuts("red " * 60, extra={"max_sequence_length": 32})["text_encoder_2"]
    assert (cut.kept_tokens, cut.total_tokens, cut.kept_characters) == (31, 60, 4 * 31 - 1)


def test_text_of_one_encoder_is_told_for_that(reader: Callable[[str], Reader]) -> None:
    """SDXL's second encoder reads `prompt_2` in place of the prompt, which may be a part of it."""
    cuts = reader("sdxl").cuts("red circle", extra={"prompt_2": LONG})
    assert {encoder: cut.kept_tokens for encoder, cut in cuts.items()} == {"text_encoder_2": 38}
    assert cuts["text_encoder_2"].kept_characters == reader("sdxl").cuts(LONG)["text_encoder_2"].kept_characters
    cuts = reader("sdxl").cuts("red", "blue", extra={"negative_prompt_2": LONG})
    assert [*cuts] == ["-text_encoder_2"]


def test_negative_prompt_is_told_apart_and_only_if_it_is_read(reader: Callable[[str], Reader]) -> None:
    """Without guidance no encoder reads it, so it cannot be cut."""
    avoided = "striped " * 100
    assert [*reader("sd21").cuts("red", avoided)] == ["-text_encoder"]
    assert reader("sd21").cuts("red", avoided, guidance=1.0) == {}
