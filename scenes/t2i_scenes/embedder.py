"""The similarity embedder as an ONNX graph: [CLS] of the pre-trained encoder, mean-centred and L2-normalised.

Without centring all captions have cosines above 0.8. With it, the dot product spreads from below 0 (no shared facts) to
1 (the same facts).
"""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertModel, PreTrainedTokenizerFast

from t2i_scenes import text_model
from t2i_scenes.captions import caption
from t2i_scenes.generating import sample_scene

_MEAN_CAPTIONS = 4000


class SceneEmbedder(nn.Module):
    """input_ids, attention_mask int64 [B,L] -> sentence_embedding float32 [B,D] of unit length."""

    mean: Tensor

    def __init__(self, encoder: BertModel, mean: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", mean)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return nn.functional.normalize(hidden[:, 0] - self.mean, dim=-1)


def build_embedder(encoder: BertModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> SceneEmbedder:
    """Centre by the mean over random captions, which becomes a constant of the graph."""
    rng = np.random.default_rng(seed)
    captions = [caption(sample_scene(rng), rng) for _ in range(_MEAN_CAPTIONS)]
    batches = [captions[at : at + 250] for at in range(0, len(captions), 250)]
    with torch.no_grad():
        total = torch.stack([text_model.encode(encoder, tokenizer, batch).cls.sum(0) for batch in batches])
    return SceneEmbedder(encoder, total.sum(0) / len(captions)).eval()


def export_embedder(encoder: BertModel, tokenizer: PreTrainedTokenizerFast, to: Path, seed: int) -> None:
    """Write `to`/tokenizer.json and `to`/model.onnx, for batches and captions of any size."""
    to.mkdir(parents=True, exist_ok=True)
    cutting = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    cutting.enable_truncation(tokenizer.model_max_length)
    cutting.save(str(to / "tokenizer.json"))
    encoder.set_attn_implementation("eager")  # exported as plain matrix products
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=tokenizer.model_max_length)
    ids = torch.full((2, 12), 4, dtype=torch.int64)
    program = torch.onnx.export(
        build_embedder(encoder, tokenizer, seed),
        (ids, torch.ones_like(ids)),
        dynamo=True,
        input_names=["input_ids", "attention_mask"],
        output_names=["sentence_embedding"],
        dynamic_shapes={"input_ids": {0: batch, 1: length}, "attention_mask": {0: batch, 1: length}},
        verbose=False,
    )
    assert program is not None  # noqa: S101 - None only without dynamo
    program.save(str(to / "model.onnx"), external_data=False)
