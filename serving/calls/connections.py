"""What a server allows on its connections, as options of gRPC."""

from __future__ import annotations

from serving.settings import LimitSettings

HANDSHAKE_S = 10  # for a new connection to say what it is
IDLE_S = 300  # a connection without calls is closed
PING_S = 30  # a connection without traffic is asked whether it is alive
PONG_S = 20  # and closed where it does not answer
CALLS = 256  # on one connection at once
METADATA_BYTES = 16 * 1024


def server_options(limits: LimitSettings) -> list[tuple[str, int]]:
    """Options of a gRPC server. Each method's own limit of a message's size is checked in serving/calls/handler.py."""
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
