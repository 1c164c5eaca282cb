"""Tiny tokenizers with vocabularies made here, and random text encoders of a few numbers wide that read them."""

import string
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    ByT5Tokenizer,
    CLIPTextConfig,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    GlmImageConfig,
    GlmImageForConditionalGeneration,
    GlmImageImageProcessor,
    GlmImageProcessor,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3Config,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

WORDS = ("red", "blue", "green", "circle", "square", "left", "right", "of", "a", "the", "above", "two")
QWEN_SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL_SPECIALS = ("<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
MISTRAL_TEMPLATE = (
    "<s>{% for message in messages %}{% for part in message.content %}{% if part.type == 'image' %}[IMG]"
    "{% else %}[INST]{{ part.text }}[/INST]{% endif %}{% endfor %}{% endfor %}"
)


def clip_tokenizer() -> Any:
    letters = [*string.ascii_lowercase, *string.digits]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>", "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[("r", "e"), ("re", "d</w>")], model_max_length=40)


def clip_encoder(kind: Any, positions: int = 40) -> Any:
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=positions,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config)


def t5_tokenizer() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((f"▁{word}", -3.0) for word in WORDS)]
    pieces += [(letter, -5.0) for letter in string.ascii_lowercase]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=64)


def t5_encoder(width: int, vocab_size: int = 0) -> Any:
    return T5EncoderModel(
        T5Config(
            vocab_size=vocab_size or len(t5_tokenizer()),
            d_model=width,
            d_kv=8,
            d_ff=37,
            num_layers=2,
            num_heads=4,
            use_cache=False,
            tie_word_embeddings=False,
        )
    )


def byt5_tokenizer() -> Any:
    return ByT5Tokenizer()


def byte_level(specials: tuple[str, ...]) -> dict[str, int]:
    """A vocabulary of one token a byte, after the special ones."""
    tokens = (*specials, *sorted(pre_tokenizers.ByteLevel.alphabet()))
    return {token: index for index, token in enumerate(tokens)}


def fast_tokenizer(tokens: tuple[str, ...], **specials: Any) -> Any:
    """Of `byte_level`; `specials` say what the special tokens are for."""
    backend = Tokenizer(models.BPE(vocab=byte_level(tokens), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=2048, **specials)


def qwen_tokenizer() -> Any:
    tokenizer = Qwen2Tokenizer(
        vocab=byte_level(QWEN_SPECIALS), merges=[], extra_special_tokens=list(QWEN_SPECIALS), model_max_length=2048
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def qwen_processor() -> Any:
    """The tokenizer with processors of images and videos, as folders that also take images have it."""
    images = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56)
    return Qwen2VLProcessor(images, qwen_tokenizer(), Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE)


def qwen3_encoder(kind: Any, width: int = 16, layers: int = 2) -> Any:
    return kind(
        Qwen3Config(
            vocab_size=len(qwen_tokenizer()),
            hidden_size=width,
            intermediate_size=16,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=2048,
        )
    )


def qwen_vl_encoder(width: int = 16) -> Any:
    ids = byte_level(QWEN_SPECIALS)
    text = {
        "vocab_size": len(ids),
        "hidden_size": width,
        "intermediate_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, width // 4 - 2], "rope_theta": 1e6},
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": width,
        "fullatt_block_indexes": [0],
    }
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
        )
    )


def gemma_tokenizer() -> Any:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["▁", *string.ascii_lowercase]
    return GemmaTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=2048)


def gemma_encoder() -> Any:
    return Gemma2Model(
        Gemma2Config(
            vocab_size=len(gemma_tokenizer()),
            hidden_size=8,
            head_dim=4,
            intermediate_size=8,
            num_attention_heads=2,
            num_hidden_layers=2,
            num_key_value_heads=2,
            attn_implementation="eager",
        )
    )


def pixtral_processor() -> Any:
    tokenizer = fast_tokenizer(
        MISTRAL_SPECIALS,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=list(MISTRAL_SPECIALS[4:]),
    )
    images = PixtralImageProcessor(size={"longest_edge": 30}, patch_size=6)
    return PixtralProcessor(images, tokenizer, patch_size=6, chat_template=MISTRAL_TEMPLATE)


def mistral_encoder(width: int, layers: int) -> Any:
    ids = byte_level(MISTRAL_SPECIALS)
    text = {
        "model_type": "mistral",
        "vocab_size": len(ids),
        "hidden_size": width,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": layers,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "pad_token_id": ids["<pad>"],
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 30,
        "patch_size": 6,
    }
    return Mistral3ForConditionalGeneration(
        Mistral3Config(text_config=text, vision_config=vision, image_token_index=ids["[IMG]"])
    )


GLM_SPECIALS = ("<|endoftext|>", "<|user|>", "<|image|>", "<sop>", "<eop>", "<|begin_of_image|>")


def glm_image_processor() -> Any:
    tokenizer = fast_tokenizer(
        GLM_SPECIALS,
        bos_token="<|begin_of_image|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image|>", "grid_bos_token": "<sop>", "grid_eos_token": "<eop>"},
    )
    template = (
        "{% for message in messages %}<|user|>{% for part in message.content %}{% if part.type == 'image' %}<|image|>"
        "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    )
    return GlmImageProcessor(GlmImageImageProcessor(), tokenizer, chat_template=template)


def glm_image_encoder(codes: int) -> Any:
    ids = byte_level(GLM_SPECIALS)
    text = {
        "vocab_size": len(ids),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "vision_vocab_size": codes,
        "pad_token_id": 0,
        "rope_parameters": {"mrope_section": (2, 1, 1), "rope_theta": 1e4, "rope_type": "default"},
    }
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "image_size": 32, "patch_size": 8, "intermediate_size": 16}
    config = GlmImageConfig(
        text_config=text,
        vision_config=vision,
        vq_config={"embed_dim": 16, "num_embeddings": codes, "latent_channels": 16},
        image_token_id=ids["<|image|>"],
        image_start_token_id=ids["<|begin_of_image|>"],
        image_end_token_id=ids["<|endoftext|>"],
    )
    return GlmImageForConditionalGeneration(config)
