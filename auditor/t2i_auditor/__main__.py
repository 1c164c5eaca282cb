"""`python -m t2i_auditor`: one auditor process."""

import asyncio
import logging

from t2i_api.parse import PoolError, parse_pool
from t2i_auditor.errors import AuditorUnusable
from t2i_auditor.server import serve
from t2i_auditor.settings import parse_arguments
from t2i_policy.profile import ProfileError
from t2i_policy.profile_document import parse_profile
from t2i_runtime.errors import SecurityError
from t2i_runtime.logs import set_up_logs
from t2i_runtime.process import end_now
from t2i_runtime.tracing import traces_sent

log = logging.getLogger("t2i_auditor")


def main() -> int:
    """Exit code 0 when told to stop, 2 when it cannot start."""
    set_up_logs()
    settings = parse_arguments()
    try:
        pool = parse_pool(settings.pool.read_text())
        part = pool.spec.quality
        if part is None:
            raise AuditorUnusable("spec.quality is not set: the pool asks for no audits")
        profile = parse_profile(settings.profile.read_text())
        with traces_sent("t2i-auditor", {"t2i.pool": pool.metadata.name}):
            asyncio.run(serve(settings, part, profile))
    except (OSError, PoolError, ProfileError, SecurityError, AuditorUnusable) as error:
        log.critical("the auditor cannot start: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    end_now(main())  # a thread that loads a judge cannot be told to stop
