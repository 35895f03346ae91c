"""A probe of a server's health: exit code 0 if it serves, else 1.

python -m serving.client.check_health 127.0.0.1:50051
"""

from __future__ import annotations

import argparse
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.client.command import add_connection_arguments


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check whether a server is ready.")
    parser.add_argument("address", help="host:port")
    parser.add_argument("--service", default="", help="as reckg.v1.EventService; default: the whole server")
    parser.add_argument("--alive", action="store_true", help="also accept a server that answers NOT_SERVING")
    parser.add_argument("--server-name", help="name in the server's certificate, if it is not the address")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds (default: %(default)s)")
    add_connection_arguments(parser)
    options = parser.parse_args(arguments)
    if options.ca is None:
        channel = grpc.insecure_channel(options.address)
    else:
        pem = [None if path is None else path.read_bytes() for path in (options.ca, options.key, options.certificate)]
        options_of_name = [("grpc.ssl_target_name_override", options.server_name)] if options.server_name else []
        channel = grpc.secure_channel(options.address, grpc.ssl_channel_credentials(*pem), options=options_of_name)
    with channel:
        try:
            request = health_pb2.HealthCheckRequest(service=options.service)
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=options.timeout).status
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(status))
    return 0 if options.alive or status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
