"""The safety hook: an endpoint of the pool's owner is asked about prompts and finished images."""

from t2i_gateway.safety.checks import SafetyChecks, open_safety
from t2i_gateway.safety.endpoint import tenant_hash

__all__ = ["SafetyChecks", "open_safety", "tenant_hash"]
