"""Find the folder of a model or an embedder on this machine, from its address in a pool document.

builtin://scenes            the small model that ships with t2i-serving, and its embedder
file:///models/sdxl         a folder
pvc://claim/path            a folder of a volume that the pod mounts at <models dir>/claim
hf://owner/name[@revision]  a model hub repository, kept under <models dir>
"""

from t2i_sources.errors import SourceMissing, SourceUnreachable
from t2i_sources.folders import EMBEDDER, MODEL, SourceKind, builtin_folder, components_of, find_folder
from t2i_sources.hub_files import INDEX, choose_model_files

__all__ = [
    "EMBEDDER",
    "INDEX",
    "MODEL",
    "SourceKind",
    "SourceMissing",
    "SourceUnreachable",
    "builtin_folder",
    "choose_model_files",
    "components_of",
    "find_folder",
]
