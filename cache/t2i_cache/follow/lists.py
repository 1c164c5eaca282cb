"""Lists for shelves that have outgrown exact search: built in a thread, swapped in between two lookups."""

import asyncio
import logging
import time
from collections.abc import Callable

from t2i_cache.catalogue import Catalogue

log = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0


async def keep_lists(catalogue: Callable[[], Catalogue]) -> None:
    """Look for shelves that want lists, and build them one after the other, until cancelled."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        while await build_due_lists(catalogue()):
            pass


async def build_due_lists(catalogue: Catalogue) -> bool:
    """Build for one shelf, if one is due."""
    index = catalogue.index_that_wants_lists()
    if index is None:
        return False
    began_s = time.monotonic()
    snapshot = index.snapshot()
    try:
        lists = await asyncio.to_thread(snapshot.build)
    except BaseException:
        index.give_up()
        raise
    index.adopt(lists)
    log.info("search lists for %d prompts, built in %.1f s", len(index), time.monotonic() - began_s)
    return True
