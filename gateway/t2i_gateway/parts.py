"""Everything that a gateway's requests are led with."""

from dataclasses import dataclass

from t2i_api.pool import PoolSpec
from t2i_gateway.audits.sampling import AuditSamples
from t2i_gateway.by_model import ModelDispatchers
from t2i_gateway.embeddings import Embeddings
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.model_names import ModelNames
from t2i_gateway.neighbours import NeighbourIndex
from t2i_gateway.planning_loop import PlanningLoop
from t2i_gateway.safety import SafetyChecks
from t2i_gateway.signing import ImageSigner
from t2i_gateway.tenant_rates import TenantRates
from t2i_gateway.workers.pool import WorkerPool
from t2i_policy.request.decide import Rules


@dataclass(frozen=True, slots=True)
class Parts:
    """`pool`: its name."""

    pool: str
    spec: PoolSpec
    names: ModelNames
    embeddings: Embeddings
    neighbours: NeighbourIndex
    workers: WorkerPool
    dispatchers: ModelDispatchers
    planning: PlanningLoop
    safety: SafetyChecks
    signer: ImageSigner | None
    rates: TenantRates
    metrics: GatewayMetrics
    samples: AuditSamples

    @property
    def rules(self) -> Rules:
        """Those in force; corrections replace them."""
        return self.planning.rules
