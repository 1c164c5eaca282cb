"""Where the model is, found before torch is imported: a wrong path is told at once."""

from pathlib import Path

from t2i_api.pool import ModelPart
from t2i_sources import MODEL, SourceMissing, find_folder
from t2i_worker.errors import ModelNotFound

VARIANTS = ("fp16", "bf16")  # precisions that repositories hold weights of beside the plain ones


def variant_of(precision: str) -> str:
    """The kind of weights that a precision loads where there is a choice; empty: the plain ones."""
    return precision if precision in VARIANTS else ""


def find_model(model: ModelPart, models_dir: Path) -> Path:
    """The model's folder, downloaded first if it is a hub's: of weights at several precisions, those of the pool.

    Raises:
        ModelNotFound: there is none; says what to do.
    """
    try:
        return find_folder(MODEL, model.source, models_dir, model.revision, variant_of(model.precision))
    except SourceMissing as error:
        raise ModelNotFound(str(error)) from error
