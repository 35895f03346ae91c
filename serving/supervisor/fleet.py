"""The fleet: the workers of a server, kept alive, all on one committed bundle."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from reckg.errors import ArtifactError, ConfigError, ReckgError
from serving.processes.channel import Answer, CallError, Channel, ChannelClosedError
from serving.processes.child_process import child_command, child_environment
from serving.settings import ServerSettings
from serving.supervisor.verify import VersionedBundle

CALL_TIMEOUT_S = 30.0  # limit of calls that load nothing
FAILED_STARTS = 3  # the server gives up after so many workers ended before it was ever ready
SETTLED_S = 10.0  # a worker that lived so long is replaced at once
BACK_OFF_S = (0.1, 10.0)  # else the first wait, which doubles up to the second
STOP_S = 5.0  # a worker is killed so long after the grace

logger = logging.getLogger("reckg.serving")


class Worker:
    """A worker's process and the channel to it.

    Args:
        number: of the worker's place in the fleet.
        answer: answers calls of the worker.
        environment: further variables of the process.
    """

    def __init__(self, number: int, answer: Answer, environment: Mapping[str, str]) -> None:
        self.number, self.started = number, time.monotonic()
        ours, theirs = socket.socketpair()
        with theirs:
            command = child_command("serving.worker.worker", "--control-fd", str(theirs.fileno()))
            self.process = subprocess.Popen(
                command,
                env=child_environment() | dict(environment),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.channel = Channel(ours, answer)
        threading.Thread(target=self.channel.serve, name=f"worker {number}", daemon=True).start()

    def prepare(self, bundle: VersionedBundle, timeout_s: float) -> None:
        """Has the worker load a bundle. Raises CallError, ChannelClosedError."""
        self.channel.call("prepare", timeout_s, path=str(bundle.path), manifest_sha256=bundle.manifest_sha256)

    def order(self, name: str) -> bool:
        """Calls the worker and returns whether it obeyed.

        A worker that fails is killed, so that it comes back on the committed bundle.

        Args:
            name: "commit", "abort" or "stop".
        """
        try:
            self.channel.call(name, CALL_TIMEOUT_S)
            return True
        except (CallError, ChannelClosedError) as error:
            logger.warning("worker %d: %s failed: %s", self.number, name, error)
            self.process.kill()
            return False

    def describe_end(self) -> str:
        """Waits for the end of the process, and describes its exit code or signal."""
        code = self.process.wait()
        return f"with {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


class Fleet:
    """The workers, which listen at the settings' host and port.

    Args:
        settings: of the server.
        bundle: the first bundle.
        answer: answers calls of workers.
        environment: further variables of the workers.
        ended: called with the id of every worker's process that ended.
    """

    def __init__(
        self,
        settings: ServerSettings,
        bundle: VersionedBundle,
        answer: Answer,
        environment: Mapping[str, str] | None = None,
        ended: Callable[[int], None] = lambda pid: None,
    ) -> None:
        self.settings, self.committed = settings, bundle
        self.respawns = 0
        self._answer, self._environment, self._ended = answer, environment or {}, ended
        self._changed = threading.Condition()
        self._ready: dict[int, Worker] = {}  # by number: workers that answer from the committed bundle
        self._running: set[Worker] = set()
        self._hashed, self._verified, self._stopping = threading.Event(), threading.Event(), threading.Event()
        self._failed_starts = 0
        self._was_ready = False
        self._failure: ReckgError | None = None
        self._keepers = [
            threading.Thread(target=self._keep, args=(number,), name=f"keeper {number}", daemon=True)
            for number in range(settings.workers)
        ]

    def start(self) -> None:
        """Starts the workers. They load the bundle after ``set_hashed`` and serve it after ``set_verified``."""
        for keeper in self._keepers:
            keeper.start()

    def set_hashed(self) -> None:
        """Lets the workers load the first bundle, because its hashes are right."""
        self._hashed.set()

    def set_verified(self) -> None:
        """Lets the workers serve the first bundle."""
        self._verified.set()

    @property
    def ready_count(self) -> int:
        """The number of workers that answer."""
        return len(self._ready)

    def is_ready(self, timeout_s: float) -> bool:
        """Waits for all workers and returns whether they are ready.

        Args:
            timeout_s: longest wait.

        Raises:
            ReckgError: the server cannot start.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failure or self._all_ready(), timeout_s)
            if self._failure is not None:
                raise self._failure
            self._was_ready = self._was_ready or self._all_ready()
            return self._all_ready()

    def swap(self, bundle: VersionedBundle) -> None:
        """Has every worker load a bundle beside the served one, and then answer from it.

        One worker may end meanwhile. It comes back and loads the bundle then.

        Args:
            bundle: a verified bundle.

        Raises:
            CallError: a worker refused, two ended, or not all were ready in time. No worker has taken the bundle.
        """
        prepared: set[Worker] = set()
        try:
            self._prepare_all(bundle, prepared)
        except (CallError, ChannelClosedError) as error:
            for worker in prepared:
                worker.order("abort")
            code = error.code if isinstance(error, CallError) else "FAILED_PRECONDITION"
            raise CallError(code, f"{bundle.version}: {error}") from error
        with ThreadPoolExecutor(len(prepared)) as threads:
            list(threads.map(lambda worker: worker.order("commit"), prepared))

    def stop(self, grace_s: float) -> None:
        """Drains the workers, and kills those that are still left.

        Args:
            grace_s: seconds for calls in flight.
        """
        with self._changed:
            for event in (self._stopping, self._hashed, self._verified):
                event.set()
            running = set(self._running)
        for worker in running:
            threading.Thread(target=worker.order, args=("stop",), daemon=True).start()
        deadline = time.monotonic() + grace_s + STOP_S
        for worker in running:
            try:
                worker.process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                logger.warning("worker %d is killed: it did not stop within %.1f s", worker.number, grace_s + STOP_S)
                worker.process.kill()
        for keeper in self._keepers:
            keeper.join(STOP_S)

    def _all_ready(self) -> bool:
        return len(self._ready) == self.settings.workers

    def _prepare_all(self, bundle: VersionedBundle, prepared: set[Worker]) -> None:
        """Adds workers to ``prepared`` until it holds all, and then commits the bundle for new workers."""
        deadline = time.monotonic() + self.settings.swap_timeout_s
        ended = 0
        while True:
            with self._changed:
                left = deadline - time.monotonic()
                if not self._changed.wait_for(lambda: self._all_ready() or self._stopping.is_set(), max(left, 0.0)):
                    raise CallError("FAILED_PRECONDITION", "not all workers were ready in time")
                if self._stopping.is_set():
                    raise CallError("UNAVAILABLE", "the server is stopping")
                waiting = set(self._ready.values()) - prepared
                if not waiting:
                    prepared &= set(self._ready.values())
                    self.committed = bundle
                    return
            # One after the other, so that the other workers answer meanwhile.
            for worker in sorted(waiting, key=lambda worker: worker.number):
                try:
                    worker.prepare(bundle, max(deadline - time.monotonic(), 0.1))
                    prepared.add(worker)
                except ChannelClosedError:
                    ended += 1
                    worker.process.kill()  # it ended, or it hangs
                    if ended > 1:
                        raise
                    self._forget(worker)

    def _keep(self, number: int) -> None:
        """Starts a worker, and another one when it ended, until the fleet stops or fails."""
        delay_s = 0.0
        while not self._stopping.wait(delay_s):
            worker = Worker(number, self._answer, self._environment)
            with self._changed:
                self._running.add(worker)
                if self._stopping.is_set():
                    worker.process.kill()
            self._bring_up(worker)
            end = worker.describe_end()
            self._ended(worker.process.pid)
            self._forget(worker)
            with self._changed:
                self._running.discard(worker)
            if self._stopping.is_set() or self._gives_up(end):
                return
            self.respawns += 1
            settled = time.monotonic() - worker.started > SETTLED_S
            delay_s = 0.0 if settled else min(max(2 * delay_s, BACK_OFF_S[0]), BACK_OFF_S[1])
            logger.warning("worker %d ended %s; another one starts in %.1f s", number, end, delay_s)

    def _bring_up(self, worker: Worker) -> None:
        """Has a new worker serve the committed bundle, or kills a worker that cannot.

        Its place is empty until then. While a place is empty, no other bundle is committed.
        """
        settings = self.settings.model_dump(mode="json")
        try:
            worker.channel.call("start", self.settings.swap_timeout_s, settings=settings)
            self._hashed.wait()
            worker.prepare(self.committed, self.settings.swap_timeout_s)
            self._verified.wait()
            if self._stopping.is_set():
                worker.process.kill()
            elif worker.order("commit"):
                with self._changed:
                    self._ready[worker.number] = worker
                    self._changed.notify_all()
                logger.info("worker %d answers, after %.2f s", worker.number, time.monotonic() - worker.started)
        except ChannelClosedError:
            worker.process.kill()  # it ended, or it hangs
        except CallError as error:
            worker.process.kill()
            logger.error("worker %d cannot serve: %s", worker.number, error)
            self._fail_start(ArtifactError(str(error)))

    def _forget(self, worker: Worker) -> None:
        with self._changed:
            if self._ready.get(worker.number) is worker:
                del self._ready[worker.number]
            self._changed.notify_all()

    def _gives_up(self, end: str) -> bool:
        """Counts a worker that ended, and returns whether the server gives up its start."""
        with self._changed:
            self._failed_starts += 1
            if not self._was_ready and self._failed_starts >= FAILED_STARTS:
                self._fail_start(ConfigError(f"workers keep ending while they start; the last one ended {end}"))
            return self._failure is not None

    def _fail_start(self, error: ReckgError) -> None:
        with self._changed:
            if not self._was_ready and self._failure is None:
                self._failure = error
                self._changed.notify_all()

    def worker_counts(self) -> dict[str, int]:
        """Returns the number of ready, wanted and replaced workers."""
        return {
            "ready_worker_count": self.ready_count,
            "worker_count": self.settings.workers,
            "respawn_count": self.respawns,
        }
