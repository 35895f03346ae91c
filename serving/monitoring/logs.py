"""The log of a server: one JSON object a line on standard error, without user ids, tokens or what was asked."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from types import TracebackType

FIELDS = ("request_id", "method", "code", "bundle_version", "worker")  # of `extra`, where a record has them
QUIET = ("faiss", "grpc", "asyncio", "opentelemetry")  # tell of every way they try; errors come all the same


class JsonLines(logging.Formatter):
    """time (UTC), level, logger, message, process and the FIELDS of a record.

    Of an exception its type and where it was raised, not its message, which may hold user ids.
    """

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        said |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            said["exception"] = record.exc_info[0].__name__
            said["where"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(record.exc_info[2])]
        return json.dumps(said, ensure_ascii=False, default=str)


def log_to_stderr(level: str = "info") -> None:
    """Replaces the handlers of the root logger by one that writes JSON lines; warnings and what nobody caught go there.

    For the start of a process: it replaces the interpreter's hooks.
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
    threading.excepthook = lambda given: _uncaught(given.exc_type, given.exc_value, given.exc_traceback)
    sys.unraisablehook = lambda given: _uncaught(given.exc_type, given.exc_value, given.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    logging.getLogger("reckg").critical("nobody caught %s", kind.__name__, exc_info=(kind, error or kind(), where))
