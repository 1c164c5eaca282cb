"""`python -m t2i_operator`: one operator process."""

import asyncio
import json
import logging
import sys

from kubernetes.aio.config.config_exception import ConfigException

from t2i_operator.server import serve
from t2i_operator.settings import parse_arguments

log = logging.getLogger("t2i_operator")
NOISY = ("kopf.objects", "kopf.activities")  # a line for every event; what came of it is one line of ours


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """With the traceback, if there is one, as `error`."""
        entry = {"ts": self.formatTime(record), "level": record.levelname.lower(), "logger": record.name}
        entry["msg"] = record.getMessage()
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def main() -> int:
    """Exit code 0 after SIGTERM, 2 when it cannot start."""
    settings = parse_arguments()
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    if settings.log_level == "info":
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.WARNING)
    if settings.log_format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
    try:
        asyncio.run(serve(settings))
    except (OSError, ConfigException) as error:
        log.critical("the operator cannot start: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
