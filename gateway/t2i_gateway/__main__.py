"""`python -m t2i_gateway`: one gateway process."""

import asyncio
import logging
import sys

from t2i_api.parse import PoolError, parse_pool
from t2i_cache.errors import StoreUrlError
from t2i_gateway.server import serve
from t2i_gateway.settings import parse_arguments
from t2i_policy.profile import ProfileError
from t2i_policy.profile_document import parse_profile
from t2i_runtime.errors import SecurityError
from t2i_runtime.logs import set_up_logs
from t2i_runtime.tracing import traces_sent
from t2i_sources.embedder import EmbedderError

log = logging.getLogger("t2i_gateway")


def main() -> int:
    """Exit code 0 after a drain, 2 when it cannot start."""
    set_up_logs()
    settings = parse_arguments()
    try:
        pool = parse_pool(settings.pool.read_text())
        profile = parse_profile(settings.profile.read_text())
        spec = pool.spec.filled_in(pool.spec.choose_ladder(profile))  # an operator's document names them already
        with traces_sent("t2i-gateway", {"t2i.pool": pool.metadata.name}):
            asyncio.run(serve(settings, pool.model_copy(update={"spec": spec}), profile))
    except (OSError, PoolError, ProfileError, EmbedderError, StoreUrlError, SecurityError) as error:
        log.critical("the gateway cannot start: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
