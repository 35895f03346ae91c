"""The log of a server: one JSON object a line on standard error, without user ids, tokens or requests."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from types import TracebackType

FIELDS = ("request_id", "method", "code", "bundle_version", "worker")  # keys of `extra` that are logged
QUIET = ("faiss", "grpc", "asyncio", "opentelemetry")  # libraries that log every attempt; their warnings are logged


class JsonLines(logging.Formatter):
    """A formatter that writes time (UTC), level, logger, message, process and the FIELDS of a record.

    An exception appears with its type and the place where it was raised. Its message is left out, because it may hold
    user ids.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the JSON object of a record."""
        entry: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        entry |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = record.exc_info[0].__name__
            entry["where"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(record.exc_info[2])]
        return json.dumps(entry, ensure_ascii=False, default=str)


def log_to_stderr(level: str = "info") -> None:
    """Logs everything as JSON lines, warnings and uncaught exceptions included.

    It replaces the handlers of the root logger and the interpreter's hooks, so call it at the start of a process.

    Args:
        level: lowest level that is logged.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda hook: _uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)
    sys.unraisablehook = lambda hook: _uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    logging.getLogger("reckg").critical("nobody caught %s", kind.__name__, exc_info=(kind, error or kind(), where))
