"""Where text encoders stop reading: told for each encoder of each family, at the character where the pipeline cuts."""

from collections.abc import Callable

import pytest

from t2i_worker.pipelines import PipelineAdapter

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
def test_each_encoder_that_stops_is_told(adapter_of: Callable[[str], PipelineAdapter], family: str) -> None:
    """With its own limit; the encoders of T5 read further than those of CLIP."""
    adapter = adapter_of(family)
    assert {cut.encoder: cut.kept_tokens for cut in adapter.cuts(LONG, "")} == FAMILIES[family]
    assert adapter.cuts("red circle", "") == ()


@pytest.mark.parametrize(("family", "kept"), [("sd3", 255), ("flux", 511)])
def test_t5_has_a_limit_too(adapter_of: Callable[[str], PipelineAdapter], family: str, kept: int) -> None:
    """The one that the pipeline gives it, not its tokenizer's own."""
    cuts = adapter_of(family).cuts("red " * 600, "")
    assert (cuts[-1].encoder[:-1], cuts[-1].kept_tokens, cuts[-1].total_tokens) == ("text_encoder_", kept, 600)
    assert cuts[-1].kept_characters == 4 * kept - 1


def test_what_is_told_is_what_the_pipeline_reads(adapter_of: Callable[[str], PipelineAdapter]) -> None:
    """Beyond the character nothing changes the text's conditions; before it everything does. Negative texts alike."""
    adapter = adapter_of("sd")
    (cut,) = adapter.cuts(LONG, "")
    end = cut.kept_characters
    read = adapter.encode(LONG, "", 1.0).prompted["encoder_hidden_states"]
    beyond = adapter.encode(f"{LONG[: end + 1]} and nothing else", "", 1.0).prompted["encoder_hidden_states"]
    assert bool((read == beyond).all())
    before = adapter.encode(f"{LONG[: end - 1]}z{LONG[end:]}", "", 1.0).prompted["encoder_hidden_states"]
    assert not bool((read == before).all())
    (negative,) = adapter.cuts("red", LONG)
    assert (negative.negative, negative.kept_characters) == (True, end)
