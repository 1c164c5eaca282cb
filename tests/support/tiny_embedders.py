"""Sentence encoders in ONNX form that are small enough to be worked out by hand: a vector for each word."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ("[PAD]", "[UNK]", "red", "blue", "circle", "square")
DIMENSION = 4
VECTORS = np.random.default_rng(5).normal(size=(len(WORDS), DIMENSION)).astype(np.float32)


def word_vectors(*words: str) -> np.ndarray:
    """[words, DIMENSION]."""
    return VECTORS[[WORDS.index(word) for word in words]]


def write_embedder(
    folder: Path,
    model: str = "onnx/model.onnx",
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"),
    pooling: dict[str, bool] | None = None,
    max_tokens: int | None = None,
) -> Path:
    """As sentence-transformers lays it out: a vector a token; the tokenizer pads to 16, as published ones do."""
    (folder / model).parent.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    _save_table(folder / model, VECTORS, inputs)
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if max_tokens is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_tokens}))
    return folder


def write_prefix(folder: Path, prefix: str) -> Path:
    """What stands before every text, as sentence-transformers notes it."""
    settings = {"prompts": {"query": prefix, "passage": "blue "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def write_table(folder: Path, tokenizer: Path) -> Path:
    """An embedder with this tokenizer and a random vector for each of its tokens."""
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    shutil.copy(tokenizer, folder / "tokenizer.json")
    num_tokens = Tokenizer.from_file(str(tokenizer)).get_vocab_size()
    vectors = np.random.default_rng(6).normal(size=(num_tokens, DIMENSION)).astype(np.float32)
    _save_table(folder / "onnx" / "model.onnx", vectors, ("input_ids", "attention_mask", "token_type_ids"))
    return folder


def _save_table(path: Path, vectors: np.ndarray, inputs: tuple[str, ...]) -> None:
    """A model that looks each token up."""
    table = numpy_helper.from_array(vectors, "table")
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])]
    shapes = [helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"]) for name in inputs]
    out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["B", "L", vectors.shape[1]])
    graph = helper.make_graph(nodes, "words", shapes, [out], [table])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, str(path))
