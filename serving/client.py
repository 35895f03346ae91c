"""A client in a few lines; it needs only grpcio and the generated messages.

with RecommenderClient("127.0.0.1:50051") as client:
    for item in client.recommend("some user", k=10).items:
        print(item.title, item.score)

python -m serving.client 127.0.0.1:50051 "some user"
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType

import grpc

from reckg.v1 import recommender_pb2 as pb
from reckg.v1 import recommender_pb2_grpc

# Every call is idempotent, so that one that met a stopping server is repeated, at the next address if there are
# several: gRPC ends a few calls with CANCELLED while a server drains.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "reckg.v1.RecommenderService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
}


class RecommenderClient:
    """Calls a recommendation server; safe to share between threads.

    Args:
        address: ``host:port``, or several servers' ``ip:port`` with commas between.
        timeout_s: deadline of each call, its repetitions included.

    Every method raises grpc.RpcError: its ``code()`` and ``details()`` say what is wrong.
    """

    def __init__(self, address: str, *, timeout_s: float = 2.0) -> None:
        self.timeout_s = timeout_s
        options = [
            ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self._channel = grpc.insecure_channel(f"ipv4:{address}" if "," in address else address, options=options)
        self._stub = recommender_pb2_grpc.RecommenderServiceStub(self._channel)

    def recommend(
        self,
        user_id: str = "",
        k: int = 10,
        *,
        include_seen: bool = False,
        recent_items: Sequence[str] = (),
        attributes: Mapping[str, str | float | Sequence[str]] | None = None,
    ) -> pb.RecommendResponse:
        """The k items that a user is most likely to want next; see the .proto for the fields of both messages.

        Args:
            recent_items: ids of the user's latest items, oldest first.
            attributes: a column of the users table to its value, or to a list of strings.
        """
        request = pb.RecommendRequest(
            user_id=user_id,
            max_item_count=k,
            include_seen=include_seen,
            recent_item_ids=recent_items,
            attributes=[_attribute(name, value) for name, value in (attributes or {}).items()],
        )
        return self._stub.Recommend(request, timeout=self.timeout_s)

    def similar_items(self, item_id: str, k: int = 10) -> pb.SimilarItemsResponse:
        """The k items closest to one item; see the .proto for the response."""
        request = pb.SimilarItemsRequest(item_id=item_id, max_item_count=k)
        return self._stub.SimilarItems(request, timeout=self.timeout_s)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> RecommenderClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _attribute(name: str, value: str | float | Sequence[str]) -> pb.UserAttribute:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return pb.UserAttribute(name=name, numbers=[value])
    value = str(value).lower() if isinstance(value, bool) else value
    return pb.UserAttribute(name=name, values=[value] if isinstance(value, str) else value)


def format_response(response: pb.RecommendResponse) -> str:
    """A response as lines for people: rank, score, item id and title."""
    lines = [f"{rank:3d}  {i.score:8.4f}  {i.item_id}  {i.title}" for rank, i in enumerate(response.items, start=1)]
    if response.fallback == pb.FALLBACK_POPULAR:
        lines.append("(the most popular items: the bundle knows nothing of this user)")
    reasons = [pb.DegradedReason.Name(reason) for reason in response.degraded_reasons]
    lines += [f"(degraded: {', '.join(reasons)})"] if reasons else []
    unknown = [*response.unknown_recent_item_ids, *response.unknown_attributes]
    lines += [f"(unknown: {', '.join(unknown)})"] if unknown else []
    return "\n".join([*lines, f"(bundle {response.bundle_version})"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ask a recommendation server for one user's items.")
    parser.add_argument("address", help="host:port, as the server prints it")
    parser.add_argument("user_id", nargs="?", default="", help="may be left out where recent items are given")
    parser.add_argument("--recent", nargs="+", default=[], metavar="ITEM_ID", help="latest items, oldest first")
    parser.add_argument("--k", type=int, default=10, help="items wanted (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        with RecommenderClient(options.address, timeout_s=10.0) as client:
            print(format_response(client.recommend(options.user_id, options.k, recent_items=options.recent)))
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
