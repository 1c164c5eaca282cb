"""Folders of judges: the true architectures, a few numbers wide, with random weights and a seed.

Weights of both towers lean one way, so that cosines are above 0, as those of trained models are.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from t2i_testing_kit.tiny_pipelines.text_encoders import clip_tokenizer

SIDE = 32
WIDTH = 32


def clip_folder(path: Path, seed: int = 3) -> Path:
    """A CLIP model of transformers, with tokenizer and image processor: PickScore, CLIPScore."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    text = {
        "vocab_size": len(tokenizer), "hidden_size": WIDTH, "intermediate_size": 37, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 40, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=_vision(), projection_dim=WIDTH))
    _lean(model.text_model.final_layer_norm, model.vision_model.post_layernorm)
    with torch.no_grad():
        model.text_projection.weight.copy_(model.visual_projection.weight)
        model.logit_scale.fill_(4.6052)  # the logarithm of 100
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    _image_processor(path)
    return path


def aesthetic_folder(path: Path, seed: int = 4, version: int = 2) -> Path:
    """A CLIP vision model with the head of LAION's predictor in the same file."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**_vision(), projection_dim=WIDTH))
    widths = (WIDTH, 64, 32, 16, 8, 1) if version == 2 else (WIDTH, 1)
    layers = [nn.Linear(one, other) for one, other in itertools.pairwise(widths)]
    with torch.no_grad():
        layers[-1].bias.fill_(5.0)
    numbers = (0, 2, 4, 6, 7) if version == 2 else (0,)
    prefix = [f"layers.{number}" if version == 2 else "predictor" for number in numbers]
    head = {f"{name}.{part}": value for name, layer in zip(prefix, layers, strict=True)
            for part, value in layer.state_dict().items()}  # fmt: skip
    model.save_pretrained(path)
    weights = {**{name: one.contiguous() for name, one in model.state_dict().items()}, **head}
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    _image_processor(path)
    return path


def hps_folder(path: Path, seed: int = 5) -> Path:
    """A CLIP model of open_clip as a checkpoint of HPSv2 is published, with its own small architecture beside it."""
    import open_clip

    torch.manual_seed(seed)
    vision = {"image_size": SIDE, "layers": 2, "width": WIDTH, "head_width": 8, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 4, "layers": 2}
    settings = {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text}
    path.mkdir(parents=True, exist_ok=True)
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": {}}))
    model = open_clip.create_model(f"local-dir:{path}", load_weights=False)
    _lean(model.ln_final, model.visual.ln_post)
    with torch.no_grad():
        model.text_projection.copy_(model.visual.proj)
    torch.save({"state_dict": model.state_dict()}, path / "HPS_v2.1_compressed.pt")
    return path


def vision_folder(path: Path, name: str = "vgg16", seed: int = 6) -> Path:
    """torchvision's VGG-16 or AlexNet with random convolutions, in the file that torchvision publishes.

    The classifier is no judge's business: its tensors are there, all zeros of one stored number.
    """
    import torchvision

    torch.manual_seed(seed)
    model = getattr(torchvision.models, name)(weights=None)
    weights = {one: value if one.startswith("features.") else torch.zeros(1).expand(value.shape)
               for one, value in model.state_dict().items()}  # fmt: skip
    path.mkdir(parents=True, exist_ok=True)
    torch.save(weights, path / {"vgg16": "vgg16-397923af.pth", "alexnet": "alexnet-owt-7be5be79.pth"}[name])
    return path


def _vision() -> dict[str, Any]:
    return {
        "hidden_size": WIDTH, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": SIDE, "patch_size": 8,
    }  # fmt: skip


def _lean(*norms: Any) -> None:
    with torch.no_grad():
        for norm in norms:
            norm.bias.add_(2.0)


def _image_processor(path: Path) -> None:
    from transformers import CLIPImageProcessor

    CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, resample=3
    ).save_pretrained(path)
