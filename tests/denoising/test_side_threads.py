"""The threads beside the denoise thread: how long what is in work takes already."""

import threading

import torch

from t2i_worker.engine.side_threads import SideThreads
from t2i_worker.jobs import Tally


async def test_age_is_that_of_the_oldest_call_in_work() -> None:
    """A text that hangs is seen by it; what ended or has not begun does not count."""
    threads = SideThreads(torch.device("cpu"), Tally(), lambda _: None)
    began, goes_on = threading.Event(), threading.Event()
    ages_s: list[float] = []

    def hang() -> None:
        began.set()
        goes_on.wait(30)

    def look() -> None:
        began.wait(30)
        ages_s.extend((threads.age_s, threads.age_s))
        goes_on.set()

    watching = threading.Thread(target=look)
    watching.start()
    assert threads.age_s == 0.0
    await threads.for_texts(hang)
    watching.join()
    assert 0.0 < ages_s[0] < ages_s[1]
    assert threads.age_s == 0.0
    threads.close()
