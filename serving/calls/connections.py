"""Limits of a server's connections, as options of gRPC."""

from __future__ import annotations

from serving.settings import LimitSettings

HANDSHAKE_S = 10  # time of a new connection for its handshake
IDLE_S = 300  # a connection without calls is closed after so long
PING_S = 30  # a connection without traffic gets a ping after so long
PONG_S = 20  # and is closed if no answer comes within this time
CALLS = 256  # calls on one connection at once
METADATA_BYTES = 16 * 1024


def server_options(limits: LimitSettings) -> list[tuple[str, int]]:
    """Returns the options of a gRPC server. serving/calls/handler.py checks each method's own size limit.

    Args:
        limits: the section ``limits`` of the settings.
    """
    return [
        ("grpc.max_receive_message_length", max(limits.max_request_bytes, limits.max_write_bytes)),
        ("grpc.max_metadata_size", METADATA_BYTES // 2),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.max_concurrent_streams", CALLS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000),
        ("grpc.http2.settings_timeout", HANDSHAKE_S * 1000),
        ("grpc.max_connection_idle_ms", IDLE_S * 1000),
        ("grpc.max_connection_age_ms", round(limits.max_connection_age_s * 1000)),
        ("grpc.max_connection_age_grace_ms", round(limits.max_connection_age_s * 1000)),
        ("grpc.keepalive_time_ms", PING_S * 1000),
        ("grpc.keepalive_timeout_ms", PONG_S * 1000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
