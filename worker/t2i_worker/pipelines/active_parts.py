"""Which of the pool's parts act in a forward of the denoiser. Calls with other parts cannot share it."""

from dataclasses import dataclass

from t2i_runtime.drawing import ScaledAdapter
from t2i_worker.pipelines.adapters import ActiveAdapters


@dataclass(frozen=True, slots=True)
class ActiveParts:
    """False: the plain model."""

    adapters: ActiveAdapters = ()
    ip_adapter: ScaledAdapter | None = None

    def __bool__(self) -> bool:
        return bool(self.adapters) or self.ip_adapter is not None


PLAIN_MODEL = ActiveParts()
