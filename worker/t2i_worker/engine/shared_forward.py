"""One forward of the denoiser for several calls: their outputs, or what is known of its failure."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from t2i_worker.device_errors import is_device_lost, is_out_of_memory
from t2i_worker.engine.meeting import DenoiserCall, merge_calls, split_output
from t2i_worker.engine.row_buckets import fill_bucket
from t2i_worker.errors import where
from t2i_worker.pipelines import Denoiser

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ForwardFailure:
    """What is kept of a forward's exception. The exception itself would hold the forward's tensors in memory."""

    place: str
    out_of_memory: bool
    lost: bool


def shared_forward(denoiser: Denoiser, calls: Sequence[DenoiserCall]) -> list[Any] | ForwardFailure:
    """The output of each call, all of one signature."""
    try:
        return _forward(denoiser, calls)
    except Exception as error:  # noqa: BLE001 - libraries raise anything; the requests get the error
        lost = is_device_lost(error, denoiser.device)
        if lost:
            log.critical("the device is lost to this process: %s", error)
        return ForwardFailure(where(error), is_out_of_memory(error), lost)


def _forward(denoiser: Denoiser, calls: Sequence[DenoiserCall]) -> list[Any]:
    """A CUDA graph of a few rows more is faster than a forward of just these rows."""
    shared, graphs, parts = denoiser.shared, denoiser.graphs, calls[0].parts
    if graphs is not None and not parts:
        filled = fill_bucket(calls, shared)
        arguments = merge_calls(filled, shared)
        if arguments in graphs:
            return split_output(graphs(arguments), [call.rows for call in filled])[: len(calls)]
    output = denoiser.forward(merge_calls(calls, shared), parts)
    return split_output(output, [call.rows for call in calls])
