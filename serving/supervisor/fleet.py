"""The fleet: the workers of a server, kept alive, all of them on one committed bundle."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reckg.errors import ArtifactError, ConfigError, ReckgError
from serving.processes.channel import Answer, CallError, Channel, ChannelClosedError
from serving.processes.child_process import child_command, child_environment
from serving.settings import ServerSettings
from serving.supervisor.verify import VersionedBundle

CALL_TIMEOUT_S = 30.0  # of calls that load nothing
FAILED_STARTS = 3  # workers that end before the server was ever ready, and then it gives up
SETTLED_S = 10.0  # a worker that lived so long is respawned at once
BACK_OFF_S = (0.1, 10.0)  # else after the first of these, then twice as long, up to the second
STOP_S = 5.0  # beyond the grace, before a worker is killed

logger = logging.getLogger("reckg.serving")


class Worker:
    """A worker's process and the channel to it."""

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
        self.channel.call("prepare", timeout_s, path=str(bundle.path), manifest_sha256=bundle.manifest_sha256)

    def tell(self, what: str) -> bool:
        """Whether the worker did it; one that cannot is killed, so that it comes back on the committed bundle."""
        try:
            self.channel.call(what, CALL_TIMEOUT_S)
            return True
        except (CallError, ChannelClosedError) as error:
            logger.warning("worker %d: %s failed: %s", self.number, what, error)
            self.process.kill()
            return False

    def how_it_ended(self) -> str:
        code = self.process.wait()
        return f"with {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


class Fleet:
    """Workers that listen at the settings' host and port.

    Args:
        answer: what a worker's calls return.
        environment: variables of the workers beside the usual ones.
        ended: told of every worker's process that ended, by its id.
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
        self._ready: dict[int, Worker] = {}  # by number: those that answer from the committed bundle
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
        """Starts the workers; they load the bundle after ``set_hashed`` and serve it after ``set_verified``."""
        for keeper in self._keepers:
            keeper.start()

    def set_hashed(self) -> None:
        self._hashed.set()

    def set_verified(self) -> None:
        self._verified.set()

    @property
    def ready_count(self) -> int:
        return len(self._ready)

    def is_ready(self, timeout_s: float) -> bool:
        """Whether all workers are ready, within a time. Raises what keeps the server from starting."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or self._all_ready(), timeout_s)
            if self._failure is not None:
                raise self._failure
            self._was_ready = self._was_ready or self._all_ready()
            return self._all_ready()

    def swap(self, bundle: VersionedBundle) -> None:
        """Has every worker load a bundle beside the present one, and then all of them answer from it.

        A worker that ends meanwhile comes back and is asked again, once.

        Raises:
            CallError: a worker refused, two ended, or not all were ready in time; none has taken the bundle.
        """
        prepared: set[Worker] = set()
        try:
            self._prepare_all(bundle, prepared)
        except (CallError, ChannelClosedError) as error:
            for worker in prepared:
                worker.tell("abort")
            code = error.code if isinstance(error, CallError) else "FAILED_PRECONDITION"
            raise CallError(code, f"{bundle.version}: {error}") from error
        with ThreadPoolExecutor(len(prepared)) as threads:
            list(threads.map(lambda worker: worker.tell("commit"), prepared))

    def stop(self, grace_s: float) -> None:
        """Drains the workers within the grace, and kills those that are left."""
        with self._changed:
            for event in (self._stopping, self._hashed, self._verified):
                event.set()
            running = set(self._running)
        for worker in running:
            threading.Thread(target=worker.tell, args=("stop",), daemon=True).start()
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
        """Fills ``prepared`` until it holds every worker; then the bundle is the committed one."""
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
            # One after the other: those that do not load answer meanwhile.
            for worker in sorted(waiting, key=lambda worker: worker.number):
                try:
                    worker.prepare(bundle, max(deadline - time.monotonic(), 0.1))
                    prepared.add(worker)
                except ChannelClosedError:
                    ended += 1
                    worker.process.kill()  # or it does not answer
                    if ended > 1:
                        raise
                    self._forget(worker)

    def _keep(self, number: int) -> None:
        """Starts a worker, and another when it ended, until the fleet stops or fails."""
        delay_s = 0.0
        while not self._stopping.wait(delay_s):
            worker = Worker(number, self._answer, self._environment)
            with self._changed:
                self._running.add(worker)
                if self._stopping.is_set():
                    worker.process.kill()
            self._bring_up(worker)
            how = worker.how_it_ended()
            self._ended(worker.process.pid)
            self._forget(worker)
            with self._changed:
                self._running.discard(worker)
            if self._stopping.is_set() or self._gives_up(worker, how):
                return
            self.respawns += 1
            settled = time.monotonic() - worker.started > SETTLED_S
            delay_s = 0.0 if settled else min(max(2 * delay_s, BACK_OFF_S[0]), BACK_OFF_S[1])
            logger.warning("worker %d ended %s; another one starts in %.1f s", number, how, delay_s)

    def _bring_up(self, worker: Worker) -> None:
        """Has a new worker serve the committed bundle; one that cannot is killed.

        Until it does, its place is empty, and while a place is empty no other bundle is committed.
        """
        settings = self.settings.model_dump(mode="json")
        try:
            worker.channel.call("start", self.settings.swap_timeout_s, settings=settings)
            self._hashed.wait()
            worker.prepare(self.committed, self.settings.swap_timeout_s)
            self._verified.wait()
            if self._stopping.is_set():
                worker.process.kill()
            elif worker.tell("commit"):
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

    def _gives_up(self, worker: Worker, how: str) -> bool:
        """Whether the server cannot start, because workers keep ending before it was ever ready."""
        with self._changed:
            self._failed_starts += 1
            if not self._was_ready and self._failed_starts >= FAILED_STARTS:
                self._fail_start(ConfigError(f"workers keep ending while they start; the last one ended {how}"))
            return self._failure is not None

    def _fail_start(self, error: ReckgError) -> None:
        with self._changed:
            if not self._was_ready and self._failure is None:
                self._failure = error
                self._changed.notify_all()

    def told(self) -> dict[str, Any]:
        """For DescribeServing."""
        return {
            "ready_worker_count": self.ready_count,
            "worker_count": self.settings.workers,
            "respawn_count": self.respawns,
        }
