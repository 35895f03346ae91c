"""A Redis server of the tests: on a free port of 127.0.0.1, its files in a folder of its own, ended by its own id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis

DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
INSTALL = "apt-get update && apt-get install -y --no-install-recommends redis-server"


def redis_program() -> str:
    """The path of redis-server; installed with apt-get where that is possible. Skips the test where it is not."""
    found = shutil.which("redis-server")
    if found is None and os.getuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # starts no service
        subprocess.run(["timeout", "300", "sh", "-c", INSTALL], env=quiet, capture_output=True)
        found = shutil.which("redis-server")
    if found is None:
        pytest.skip("there is no redis-server, and it could not be installed (apt-get install redis-server, as root)")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LocalRedis:
    """Started at once; ``stop`` and ``start`` keep the folder and the port.

    options: as on Redis's command line.
    """

    def __init__(self, folder: Path, options: tuple[str, ...] = DURABLE, password: str = "") -> None:
        self.program, self.folder, self.options = redis_program(), folder, options
        self.port, self.password = free_port(), password
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        place = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder))
        secret = ("--requirepass", self.password) if self.password else ()
        with (self.folder / "redis.log").open("ab") as log:
            command = [self.program, *place, *secret, *self.options]
            # restore_signals: a file that may not grow is then an error to Redis, as on a full disk, and no signal.
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, restore_signals=False
            )
        deadline = time.monotonic() + 20
        with redis.Redis.from_url(self.url, socket_timeout=5) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        pytest.fail(f"redis-server does not start:\n{(self.folder / 'redis.log').read_text()[-2000:]}")
                    time.sleep(0.02)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """With SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
