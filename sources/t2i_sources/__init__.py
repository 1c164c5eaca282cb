"""Find the folder of a model or an embedder on this machine, from its address in a pool document.

builtin://scenes            the small model that ships with t2i-serving, and its embedder
builtin://scenes/distilled  the same taught to draw in a few unguided steps
file:///models/sdxl         a folder
pvc://claim/path            a folder of a volume that the pod mounts at <models dir>/claim
hf://owner/name[@revision]  a model hub repository, kept under <models dir>
"""

from t2i_sources.adapters import find_adapter
from t2i_sources.errors import SourceMissing, SourceUnreachable
from t2i_sources.folders import (
    EMBEDDER,
    MODEL,
    PREVIEW_DECODER,
    SourceKind,
    builtin_folder,
    components_of,
    control_kind,
    find_folder,
)
from t2i_sources.hub_files import INDEX, choose_component_files, choose_decoder_files, choose_model_files
from t2i_sources.ip_adapters import IpAdapterFiles, find_ip_adapter

__all__ = [
    "EMBEDDER",
    "INDEX",
    "MODEL",
    "PREVIEW_DECODER",
    "IpAdapterFiles",
    "SourceKind",
    "SourceMissing",
    "SourceUnreachable",
    "builtin_folder",
    "choose_component_files",
    "choose_decoder_files",
    "choose_model_files",
    "components_of",
    "control_kind",
    "find_adapter",
    "find_folder",
    "find_ip_adapter",
]
