"""What children are rendered from."""

from dataclasses import dataclass

from t2i_api.pool import PoolSpec
from t2i_operator.manifests import PoolRef


@dataclass(frozen=True, slots=True)
class Images:
    """The images to run, how they are pulled, and the namespace of the operator that does it all (empty: any)."""

    gateway: str
    worker: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    operator_namespace: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A pool, its measured profile (the JSON text), and the images."""

    ref: PoolRef
    spec: PoolSpec
    profile: str
    images: Images

    @property
    def drain_s(self) -> int:
        """Seconds that requests in flight get when a process must go: two SLOs, within bounds."""
        return max(30, min(600, 2 * self.spec.slo.latency_milliseconds // 1000))
