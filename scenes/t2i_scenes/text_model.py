"""The caption encoder: a word-level tokenizer and a small BERT.

Pre-training predicts every attribute of the scene from the [CLS] vector. One frozen copy then serves as the similarity
embedder, because captions that share facts get similar vectors. Another copy conditions the UNet and is trained with
it.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from t2i_scenes.captions import caption, vocabulary
from t2i_scenes.generating import sample_scene
from t2i_scenes.hyperparameters import TextHyperparameters
from t2i_scenes.sampling import EncodedCaptions
from t2i_scenes.scene import ARRANGEMENTS, COLOURS, PATTERNS, SHAPES, SIZES, Scene

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_ARRANGED = tuple(f"{count} {name}" for count, names in ARRANGEMENTS.items() for name in names)
#: Sizes of the pre-training heads: facts of the scene, then colour, shape and size of three things (0 = no such thing).
HEAD_SIZES = (len(COLOURS), len(PATTERNS), len(_ARRANGED), *((len(COLOURS) + 1, len(SHAPES) + 1, len(SIZES) + 1) * 3))


def build_tokenizer(max_tokens: int) -> PreTrainedTokenizerFast:
    """Lower case, letters and digits only, one token a word. Unknown words become [UNK]; long captions are cut."""
    words = {word: index for index, word in enumerate((*_SPECIAL, *vocabulary()))}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\p{L}\p{N}]+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_tokens,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def build_encoder(tokenizer: PreTrainedTokenizerFast, sizes: TextHyperparameters) -> BertModel:
    return BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.hidden_size,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=sizes.intermediate_size,
            max_position_embeddings=sizes.max_caption_tokens,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=0,
        )
    )


def encode(encoder: BertModel, tokenizer: PreTrainedTokenizerFast, captions: Sequence[str]) -> EncodedCaptions:
    """Captions are always padded to the full length, so that they do not depend on their batch."""
    length = tokenizer.model_max_length
    tokens = tokenizer(list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    hidden = encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    return EncodedCaptions(hidden, hidden[:, 0])


def attribute_targets(scene: Scene) -> list[int]:
    """The class index for each head of HEAD_SIZES."""
    arranged = _ARRANGED.index(f"{len(scene.things)} {scene.arrangement}")
    targets = [COLOURS.index(scene.background), PATTERNS.index(scene.pattern), arranged]
    for thing in scene.things:
        size = 0 if thing.size is None else 1 + SIZES.index(thing.size)
        targets += [1 + COLOURS.index(thing.colour), 1 + SHAPES.index(thing.shape), size]
    return targets + [0] * (len(HEAD_SIZES) - len(targets))


def pretrain(
    tokenizer: PreTrainedTokenizerFast, sizes: TextHyperparameters, seed: int, report: Callable[[str], None]
) -> BertModel:
    """Train a new encoder on scene attributes. It takes about 100 s on two cores."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    encoder = build_encoder(tokenizer, sizes)
    heads = nn.Linear(sizes.hidden_size, sum(HEAD_SIZES))
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=sizes.pretraining_lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, sizes.pretraining_lr, sizes.pretraining_steps)
    started = time.monotonic()
    for step in range(1, sizes.pretraining_steps + 1):
        scenes = [sample_scene(rng) for _ in range(sizes.pretraining_batch)]
        targets = torch.tensor([attribute_targets(scene) for scene in scenes])
        encoded = encode(encoder, tokenizer, [caption(scene, rng) for scene in scenes])
        logits = heads(encoded.cls).split(HEAD_SIZES, dim=1)
        losses = [nn.functional.cross_entropy(part, targets[:, i]) for i, part in enumerate(logits)]
        optimiser.zero_grad()
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            right = torch.stack([part.argmax(1) == targets[:, i] for i, part in enumerate(logits)]).float().mean()
            passed_s = time.monotonic() - started
            report(f"text step {step}/{sizes.pretraining_steps}  attributes right {float(right):.3f}  {passed_s:.0f} s")
    return encoder.eval()
