"""Whether all workers of a model draw with the same files: an adapter or a component of one name must be one file.

A worker reads its files at its start. So one that restarted after a file changed draws other images than its peers.
"""

import logging

from t2i_protos.v1 import worker_pb2

log = logging.getLogger(__name__)


class PartsOfWorkers:
    """The digests of what each worker has loaded beside its model."""

    def __init__(self) -> None:
        self._digests: dict[str, dict[tuple[str, str], str]] = {}

    def take_in(self, told: worker_pb2.WorkerDescription) -> None:
        """Warn of what another worker has another file of."""
        parts = {(told.model, f"adapter {one.name!r}"): one.digest for one in told.adapters}
        parts |= {(told.model, f"component {one.name!r}"): one.digest for one in told.components if one.digest}
        self.forget(told.name)
        for part, digest in parts.items():
            unlike = [name for name, theirs in self._digests.items() if theirs.get(part, digest) != digest]
            if unlike:
                text = "worker %s: %s is another file than on %s, so images differ; restart those with the older"
                log.warning(text, told.name, part[1], _in_short(sorted(unlike)))
        self._digests[told.name] = parts

    def forget(self, worker: str) -> None:
        self._digests.pop(worker, None)


def _in_short(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
