"""Where text encoders stop reading: told for each encoder of each family, at the character where the pipeline cuts."""

from collections.abc import Callable

import pytest
from torch import Tensor

from t2i_worker.pipelines import LoadedPipeline

WORDS = "red circle left of the blue square "
#: Encoders that stop within LONG, and how many tokens they read: their limit without the special tokens.
LONG = WORDS * 12
FAMILIES = {
    "sd": {"text_encoder": 38},
    "sdxl": {"text_encoder": 38, "text_encoder_2": 38},
    "sd3": {"text_encoder": 38, "text_encoder_2": 38},
    "flux": {"text_encoder": 38},
    "scenes": {"text_encoder": 12},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_encoder_that_stops_is_told(pipeline_of: Callable[[str], LoadedPipeline], family: str) -> None:
    """With its own limit; the encoders of T5 read further than those of CLIP."""
    pipeline = pipeline_of(family)
    assert {cut.encoder: cut.kept_tokens for cut in pipeline.cuts(LONG, "")} == FAMILIES[family]
    assert pipeline.cuts("red circle", "") == ()


@pytest.mark.parametrize(("family", "kept"), [("sd3", 255), ("flux", 511)])
def test_t5_has_a_limit_too(pipeline_of: Callable[[str], LoadedPipeline], family: str, kept: int) -> None:
    """The one that the pipeline gives it, not its tokenizer's own."""
    cuts = pipeline_of(family).cuts("red " * 600, "")
    assert (cuts[-1].encoder[:-1], cuts[-1].kept_tokens, cuts[-1].total_tokens) == ("text_encoder_", kept, 600)
    assert cuts[-1].kept_characters == 4 * kept - 1


def test_what_is_told_is_what_the_pipeline_reads(pipeline_of: Callable[[str], LoadedPipeline]) -> None:
    """Beyond the character nothing changes the text's conditions; before it everything does. Negative texts alike."""
    pipeline = pipeline_of("sd")
    (cut,) = pipeline.cuts(LONG, "")
    end = cut.kept_characters

    def read(prompt: str) -> Tensor:
        return pipeline.stock.encode_prompt(prompt, pipeline.device, 1, False)[0]

    whole = read(LONG)
    assert bool((whole == read(f"{LONG[: end + 1]} and nothing else")).all())
    assert not bool((whole == read(f"{LONG[: end - 1]}z{LONG[end:]}")).all())
    (negative,) = pipeline.cuts("red", LONG)
    assert (negative.negative, negative.kept_characters) == (True, end)
