"""Embedders of others: a sentence encoder's ONNX export gives the vector that its own library would give."""

from pathlib import Path

import numpy as np
import pytest

from real_tokenizers import unigram
from t2i_scenes import embedder_path
from t2i_sources.embedder import Embedder, EmbedderError, load_embedder
from t2i_sources.prompt_reading import Unread
from tiny_embedders import word_vectors, write_embedder, write_prefix, write_table


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_tokens_are_averaged_and_padding_is_not(tmp_path: Path) -> None:
    """Without a pooling file, and with one that says mean."""
    for name, pooling in (("a", None), ("b", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False})):
        embedder = Embedder(write_embedder(tmp_path / name, pooling=pooling))
        expected = unit(word_vectors("red", "circle").mean(0))
        assert embedder.embed_now("red circle").vector == pytest.approx(expected, abs=1e-6)
        assert embedder.dimension == 4


def test_first_token_stands_for_all_if_asked(tmp_path: Path) -> None:
    """Encoders of the BGE family."""
    embedder = Embedder(write_embedder(tmp_path, pooling={"pooling_mode_cls_token": True}))
    assert embedder.embed_now("blue red square").vector == pytest.approx(unit(word_vectors("blue")[0]), abs=1e-6)


def test_long_prompts_are_not_read_whole(tmp_path: Path) -> None:
    """`max_seq_length` of the published encoder is where it stops reading."""
    embedder = Embedder(write_embedder(tmp_path, max_tokens=2))
    assert embedder.embed_now("red circle").unread is None
    assert embedder.embed_now("red circle blue blue").unread is Unread.CUT


def test_a_prompt_that_is_not_read_whole_is_like_no_other(tmp_path: Path) -> None:
    """Prompts that differ by one sign have vectors of their own, of a kind that is never compared with the others'."""
    embedder = Embedder(write_embedder(tmp_path))
    cat, train, plain = (embedder.embed_now(f"red circle{sign}") for sign in (" 🐈", " 🚂", ""))
    assert cat.vector == pytest.approx(embedder.embed_now("red circle 🐈").vector)
    assert np.linalg.norm(cat.vector) == pytest.approx(1.0)
    assert abs(float(cat.vector @ train.vector)) < 0.99
    assert cat.kind == train.kind != plain.kind == embedder.digest


def test_a_multilingual_encoder_works_by_address(tmp_path: Path) -> None:
    """Layout of paraphrase-multilingual-MiniLM-L12-v2: a Unigram tokenizer, `onnx/model.onnx`, a vector a token."""
    embedder = load_embedder(write_table(tmp_path / "many", unigram(tmp_path)).as_uri(), tmp_path)
    thai, other = embedder.embed_now("แมว แดง"), embedder.embed_now("แมว แมว")
    assert (thai.unread, other.unread) == (None, None)
    assert abs(float(thai.vector @ other.vector)) < 0.99
    assert embedder.embed_now("แมว 🐈").unread is Unread.UNKNOWN


def test_a_default_prompt_stands_before_every_text(tmp_path: Path) -> None:
    """Encoders of the E5 family are trained so; it makes them another embedder."""
    plain = Embedder(write_embedder(tmp_path / "plain"))
    asked = Embedder(write_prefix(write_embedder(tmp_path / "asked"), "blue "))
    assert asked.embed_now("red circle").vector == pytest.approx(plain.embed_now("blue red circle").vector)
    assert asked.digest != plain.digest


def test_inputs_are_those_the_model_wants(tmp_path: Path) -> None:
    """Some exports have no token types; one that wants something else is refused by name."""
    few = Embedder(write_embedder(tmp_path / "few", inputs=("input_ids", "attention_mask")))
    assert len(few.embed_now("red").vector) == 4
    with pytest.raises(EmbedderError, match="pixel_values"):
        Embedder(write_embedder(tmp_path / "odd", inputs=("input_ids", "pixel_values")))


def test_digest_tells_embedders_apart(tmp_path: Path) -> None:
    """Vectors of two embedders mean nothing to each other, so their digests differ; copies agree."""
    one, copy = (Embedder(write_embedder(tmp_path / name)).digest for name in ("one", "copy"))
    other = Embedder(embedder_path()).digest
    first = Embedder(write_embedder(tmp_path / "first", pooling={"pooling_mode_cls_token": True})).digest
    assert one == copy
    assert len({one, other, first}) == 3


@pytest.mark.parametrize("broken", ["tokenizer.json", "onnx/model.onnx", "1_Pooling/config.json"])
def test_broken_files_are_named(tmp_path: Path, broken: str) -> None:
    """A transfer that went wrong, or a kind of pooling that we do not know."""
    folder = write_embedder(tmp_path, pooling={"pooling_mode_max_tokens": True} if "Pooling" in broken else None)
    if "Pooling" not in broken:
        (folder / broken).write_bytes(b"{")
    with pytest.raises(EmbedderError, match=broken):
        Embedder(folder)


def test_missing_files_are_named(tmp_path: Path) -> None:
    """What an embedder must be is in the message."""
    with pytest.raises(EmbedderError, match=r"tokenizer\.json and model\.onnx"):
        Embedder(tmp_path)
