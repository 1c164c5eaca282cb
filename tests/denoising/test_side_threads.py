"""The threads of requests: used again, bounded, and gone after the engine."""

import threading

from t2i_worker.engine.side_threads import RequestThreads


async def test_threads_are_bounded_and_used_again() -> None:
    """Many requests run in few threads; one beyond waits for a thread."""
    threads = RequestThreads(2)
    names: set[str] = set()
    ended = threading.Semaphore(0)

    def note() -> None:
        names.add(threading.current_thread().name)
        ended.release()

    for _ in range(50):
        threads.start(note)
    for _ in range(50):
        assert ended.acquire(timeout=60)
    assert 1 <= len(names) <= 2
    assert await threads.aside(lambda: 7) == 7
    threads.close()
