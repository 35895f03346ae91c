"""JSON lines without what is private."""

from __future__ import annotations

import gc
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from serving.monitoring.logs import log_to_stderr


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield logger
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_a_line_is_one_json_object(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info")
    logger = logging.getLogger("reckg.serving")
    logger.info("ready after %.1f s\nand more", 1.25, extra={"request_id": "r1", "bundle_version": "v1"})
    logger.debug("not told")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry["message"] == "ready after 1.2 s\nand more" and entry["level"] == "info"
    assert (entry["request_id"], entry["bundle_version"], entry["logger"]) == ("r1", "v1", "reckg.serving")
    assert entry["time"].endswith("Z") and isinstance(entry["process"], int)


def test_an_exceptions_message_is_not_told(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("debug")
    try:
        raise KeyError("anna@example.org")
    except KeyError:
        logging.getLogger("reckg.serving").exception("a call failed")
    text = capsys.readouterr().err
    entry = json.loads(text)
    assert entry["exception"] == "KeyError" and "test_logs.py" in entry["where"][0]
    assert "anna" not in text


class Spoiled:
    def __del__(self) -> None:
        raise KeyError("anna@example.org")


def fail() -> None:
    raise ValueError("anna@example.org")


def test_what_nobody_caught_and_warnings_are_lines_too(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to_stderr("info")
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    Spoiled()
    gc.collect()
    sys.excepthook(TypeError, TypeError("anna@example.org"), None)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a library warns", UserWarning, stacklevel=1)
    text = capsys.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    lines = [line for line in lines if "exception" in line or "warns" in line["message"]]  # threads of others may log
    assert [line.get("exception") for line in lines] == ["ValueError", "KeyError", "TypeError", None]
    assert [line["level"] for line in lines] == ["critical"] * 3 + ["warning"]
    assert "in fail" not in text and "fail" in lines[0]["where"][-1] and "a library warns" in lines[3]["message"]
    assert "anna" not in text
