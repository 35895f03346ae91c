"""A gRPC server with the interceptor before stand-in methods, which take as long as a test wants.

As a process of its own: python -m tests.entered_server --work-ms 10 --threads 2
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from reckg.v1 import recommender_pb2 as pb
from reckg.v1 import recommender_pb2_grpc
from serving.access.tls import Credentials
from serving.calls.call import Call
from serving.calls.connections import server_options
from serving.calls.interceptor import Interceptor
from serving.settings import ServerSettings

RECOMMEND = "/reckg.v1.RecommenderService/Recommend"
BATCH = "/reckg.v1.RecommenderService/BatchRecommend"
Answer = Callable[[pb.RecommendRequest, grpc.ServicerContext], pb.RecommendResponse]


class StandIn(recommender_pb2_grpc.RecommenderServiceServicer):
    def __init__(self, answer: Answer, kilobytes: int) -> None:
        self.answer, self.filler = answer, "x" * 1024 * kilobytes

    def Recommend(self, request: pb.RecommendRequest, context: grpc.ServicerContext) -> pb.RecommendResponse:
        return self.answer(request, context)

    def BatchRecommend(
        self, request: pb.BatchRecommendRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.BatchRecommendResponse]:
        for user_id in request.user_ids:
            yield pb.BatchRecommendResponse(
                user_id=user_id, recommendations=pb.RecommendResponse(bundle_version=self.filler)
            )


@dataclass
class Entered:
    address: str
    interceptor: Interceptor
    ended: list[tuple[Call, grpc.StatusCode]] = field(default_factory=list)  # calls that ended, with their status

    @property
    def in_flight(self) -> list[int]:
        return [lane.in_flight for lane in self.interceptor.lanes]


@contextmanager
def entered_server(
    answer: Answer = lambda request, context: pb.RecommendResponse(bundle_version="v"),
    *,
    kilobytes: int = 1,
    **settings: Any,
) -> Iterator[Entered]:
    """Args: answer: of Recommend; kilobytes: of each message of BatchRecommend; settings: of the server."""
    parsed = ServerSettings(**({"bundle": Path()} | settings))
    ended: list[tuple[Call, grpc.StatusCode]] = []
    lock = threading.Lock()

    def observe(call: Call, code: grpc.StatusCode) -> None:
        with lock:
            ended.append((call, code))

    interceptor = Interceptor(parsed, observe=observe)
    server = grpc.server(interceptor.others.pool, interceptors=[interceptor], options=server_options(parsed.limits))
    recommender_pb2_grpc.add_RecommenderServiceServicer_to_server(StandIn(answer, kilobytes), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(experimental_non_blocking=True), server)
    if parsed.tls.certificate is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", Credentials(parsed.tls).for_grpc())
    server.start()
    try:
        yield Entered(f"127.0.0.1:{port}", interceptor, ended)
    finally:
        server.stop(0).wait()


def raw(channel: grpc.Channel, method: str = RECOMMEND) -> Callable[..., Any]:
    """A unary method that takes and gives bytes."""
    return channel.unary_unary(method)


def status(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """The status of a call, and its details."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work-ms", type=float, required=True, help="of Recommend, asleep")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    def answer(request: pb.RecommendRequest, context: grpc.ServicerContext) -> pb.RecommendResponse:
        time.sleep(options.work_ms / 1000)
        return pb.RecommendResponse()

    with entered_server(answer, threads=options.threads, kilobytes=64, limits={"max_queue_ms": 50}) as server:
        print(server.address, flush=True)
        for _ in sys.stdin:
            print(json.dumps(server.in_flight), flush=True)


if __name__ == "__main__":
    main()
