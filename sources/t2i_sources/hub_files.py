"""Choose the files of a hub's repository to download, by their names alone.

A repository holds the same weights several times: for other frameworks, as one file beside the folders, at two
precisions. That of SDXL has about ten times the bytes that one pipeline loads.
"""

import re
from collections.abc import Callable, Collection, Iterable

#: From the names in the repository, the pipeline's components (empty without a pipeline) and the variant: what to get.
Choice = Callable[[Collection[str], Collection[str], str], list[str]]

INDEX = "model_index.json"  # every pipeline in diffusers layout has this file
_BESIDE_WEIGHTS = re.compile(r"\.(json|txt|model|jinja)$")
_WEIGHTS = re.compile(r"^(?P<name>[^.]+)(\.(?P<variant>[a-z][a-z0-9_]*))?(-\d+-of-\d+)?\.(?P<format>safetensors|bin)$")
_SHARDS = re.compile(r"^(?P<name>[^.]+)\.(?P<format>safetensors|bin)\.index(\.(?P<variant>[a-z0-9_]+))?\.json$")
_EMBEDDER = re.compile(
    r"^(tokenizer\.json|(sentence_bert_config|config_sentence_transformers|1_Pooling/config)\.json"
    r"|(onnx/)?model\.onnx(_data|\.data)?)$"
)


def choose_model_files(names: Collection[str], components: Collection[str], variant: str) -> list[str]:
    """Choose the settings of each component and one set of weights, for a pipeline in diffusers layout.

    Safetensors come before pickles. Weights of the variant (fp16, bf16) come before plain ones, and these before any
    others.
    """
    chosen = [name for name in names if name == INDEX]
    for component in components:
        prefix = f"{component}/"
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        chosen += [prefix + name for name in choose_component_files(inside, variant)]
    return sorted(chosen)


def choose_embedder_files(names: Collection[str], components: Collection[str], variant: str) -> list[str]:
    """Choose the files of a sentence encoder with an ONNX export, in the layout of sentence-transformers."""
    del components, variant
    chosen = {name for name in names if _EMBEDDER.match(name)}
    if "model.onnx" in chosen:
        chosen = {name for name in chosen if not name.startswith("onnx/")}
    return sorted(chosen)


def choose_decoder_files(names: Collection[str], components: Collection[str], variant: str) -> list[str]:
    """Choose the settings and weights of a decoder in diffusers layout that is a whole repository by itself."""
    del components
    own = [name for name in names if name == "config.json" or re.match(r"diffusion_pytorch_model[^/]*$", name)]
    return sorted(_of_component(own, variant))


def choose_component_files(names: Collection[str], variant: str = "") -> list[str]:
    """Choose the settings and one set of weights among the names in a component's folder."""
    return sorted(_of_component([name for name in names if "/" not in name], variant))


def _of_component(names: list[str], variant: str) -> Iterable[str]:
    weights = [(name, found) for name in names if (found := _WEIGHTS.match(name) or _SHARDS.match(name))]
    settings = [name for name in names if _BESIDE_WEIGHTS.search(name) and not _SHARDS.match(name)]
    there = {(found["format"], found["variant"] or "") for _, found in weights}
    asked = [(kind, one) for kind in ("safetensors", "bin") for one in dict.fromkeys((variant, ""))]
    best = next((one for one in [*asked, *sorted(there, reverse=True)] if one in there), None)
    return [*settings, *(name for name, found in weights if (found["format"], found["variant"] or "") == best)]
