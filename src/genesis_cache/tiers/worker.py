"""One daemon thread that runs jobs in order: started by the first, ended by `stop`, and never in the way of an exit."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

Job = Callable[[], object]


class Worker:
    """Runs jobs one after another on a thread of its own.

    While it waits it refers to nothing but its queue, so that whoever posts jobs can be collected. A job must not
    raise; one that does ends up with `threading.excepthook`, and the next runs on a new thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def post(self, job: Job) -> None:
        """Run a job after those posted before it."""
        with self._guard:
            self._jobs.put(job)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=_run, args=(self._jobs,), name=self._name, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the thread after the jobs posted so far; a later job starts another, with a queue of its own."""
        with self._guard:
            if self._thread is not None:
                self._jobs.put(None)
                self._jobs = SimpleQueue()
                self._thread = None


def _run(jobs: "SimpleQueue[Job | None]") -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # nothing may be held while waiting for the next
