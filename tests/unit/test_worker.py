"""The worker: one thread, jobs in order, gone when stopped."""

import threading

import pytest

from genesis_cache.tiers.worker import Worker


def finish(worker: Worker) -> None:
    """Stop a worker and wait for its threads."""
    threads = [thread for thread in threading.enumerate() if thread.name == "unit-worker"]
    worker.stop()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_jobs_run_in_order_on_one_thread() -> None:
    """What is posted runs in that order, elsewhere, and all of it before the thread ends."""
    worker = Worker("unit-worker")
    ran: list[tuple[int, int]] = []
    for number in range(100):
        worker.post(lambda number=number: ran.append((number, threading.get_ident())))
    finish(worker)
    assert [number for number, _ in ran] == list(range(100))
    assert len({thread for _, thread in ran} | {threading.get_ident()}) == 2


def test_it_starts_again_after_a_stop() -> None:
    """Stopped any number of times, a later job still runs, and no thread stays behind."""
    worker = Worker("unit-worker")
    worker.stop()
    for _ in range(20):
        done = threading.Event()
        worker.post(done.set)
        worker.stop()
        assert done.wait(10)
    finish(worker)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # that is what is tested
def test_a_job_that_raises_ends_only_itself() -> None:
    """The next job runs although the one before it failed."""
    worker = Worker("unit-worker")
    worker.post(lambda: {}["nothing"])
    for thread in threading.enumerate():
        if thread.name == "unit-worker":
            thread.join(10)
    done = threading.Event()
    worker.post(done.set)
    assert done.wait(10)
    finish(worker)
