"""What is simulated is what is served: the simulator's shell follows the gateway's rules outside the policy too."""

from t2i_gateway import delivery, dispatch
from t2i_simulator import dispatching


def test_shells_give_up_alike() -> None:
    """As many workers are tried, and no worker at all is borne as long."""
    assert dispatching.MAX_RETRIES == delivery.MAX_RETRIES
    assert dispatching.NO_WORKERS_GRACE_S == dispatch.NO_WORKERS_GRACE_S
