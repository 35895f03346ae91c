"""The metadata of a rejection."""

from __future__ import annotations

from serving.calls.rejection import push_back


def test_push_back_is_in_whole_milliseconds_and_within_the_deadline() -> None:
    values = [
        push_back(*given)[0][1] for given in [(0.0123, None), (0.00001, 2.0), (1.0, 1.0), (None, None), (None, 2.0)]
    ]
    assert values == ["12", "1", "-1", "-1", "-1"]
    assert push_back(0.0123, None)[0][0] == "grpc-retry-pushback-ms"
