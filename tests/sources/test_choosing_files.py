"""What is downloaded of a hub's repository: what one pipeline loads, and none of the copies beside it."""

import pytest

from t2i_sources.hub_files import choose_embedder_files, choose_model_files

COMPONENTS = (
    "_class_name",
    "scheduler",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "unet",
    "vae",
)
SDXL = [
    "README.md",
    "model_index.json",
    "sd_xl_base_1.0.safetensors",
    "sd_xl_offset_example-lora_1.0.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/flax_model.msgpack",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/model.onnx",
    "text_encoder/model.safetensors",
    "text_encoder/openvino_model.bin",
    "text_encoder/openvino_model.xml",
    "text_encoder_2/config.json",
    "text_encoder_2/model.onnx_data",
    "text_encoder_2/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "vae_1_0/config.json",
    "vae_1_0/diffusion_pytorch_model.safetensors",
    "vae_decoder/model.onnx",
]
SETTINGS = [name for name in SDXL if name.endswith((".json", ".txt")) and not name.startswith("vae_1_0")]


def weights(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith((".safetensors", ".bin"))]


def test_one_set_of_weights_at_the_pools_precision() -> None:
    """fp16 files where there are some; a component that has none gives its plain ones; nothing of other frameworks."""
    chosen = choose_model_files(SDXL, COMPONENTS, "fp16")
    assert weights(chosen) == [
        "text_encoder/model.fp16.safetensors",
        "text_encoder_2/model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert sorted(set(chosen) - set(weights(chosen))) == sorted(SETTINGS)


def test_plain_weights_for_other_precisions() -> None:
    """No variant was asked for, or there is none of it: what everybody loads by default."""
    for variant in ("", "bf16"):
        assert weights(choose_model_files(SDXL, COMPONENTS, variant)) == [
            "text_encoder/model.safetensors",
            "text_encoder_2/model.safetensors",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
        ]


def test_shards_come_with_their_index() -> None:
    """Large components are many files; those of another variant stay away, and pickles where safetensors are."""
    names = [
        "transformer/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "transformer/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.fp16.json",
        "transformer/pytorch_model.bin",
    ]
    assert choose_model_files(names, ["transformer"], "") == sorted(names[:4])
    assert choose_model_files(names, ["transformer"], "fp16") == sorted([names[0], *names[4:6]])
    assert choose_model_files(["unet/config.json", "unet/model.bin"], ["unet"], "") == [
        "unet/config.json",
        "unet/model.bin",
    ]


WEIGHTS = {
    "a variant nobody asked for beside plain pickles": (["m.bin", "m.fp16.safetensors"], "", ["m.bin"]),
    "the asked variant before plain pickles": (["m.bin", "m.fp16.safetensors"], "fp16", ["m.fp16.safetensors"]),
    "plain safetensors before a variant in pickles": (["m.fp16.bin", "m.safetensors"], "fp16", ["m.safetensors"]),
    "nothing but another variant": (["m.fp16.safetensors"], "bf16", ["m.fp16.safetensors"]),
}


@pytest.mark.parametrize(("names", "variant", "expected"), WEIGHTS.values(), ids=WEIGHTS.keys())
def test_some_weights_are_always_chosen(names: list[str], variant: str, expected: list[str]) -> None:
    """A component without any would never load."""
    chosen = choose_model_files([f"unet/{name}" for name in names], ["unet"], variant)
    assert chosen == [f"unet/{name}" for name in expected]


def test_an_embedder_is_its_onnx_export() -> None:
    """Of a sentence encoder neither the weights for torch nor the quantised copies."""
    names = [
        "1_Pooling/config.json",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "onnx/model.onnx",
        "onnx/model_O3.onnx",
        "onnx/model_qint8_avx512.onnx",
        "openvino/openvino_model.xml",
        "sentence_bert_config.json",
        "tokenizer.json",
        "vocab.txt",
    ]
    settings = ["1_Pooling/config.json", "config_sentence_transformers.json"]
    wanted = [*settings, "onnx/model.onnx", "sentence_bert_config.json", "tokenizer.json"]
    assert choose_embedder_files(names, (), "") == wanted
