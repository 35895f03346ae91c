"""A client in a few lines; it needs only grpcio, protobuf and the generated messages.

with RecommenderClient("127.0.0.1:50051") as client:
    for item in client.recommend("some user", k=10).items:
        print(item.title, item.score)

python -m serving.client 127.0.0.1:50051 "some user"
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from reckg.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    item_pb2,
    recommender_pb2_grpc,
)
from reckg.v1 import recommender_pb2 as pb

# Every call but those of AdminService is idempotent, so that one that met a stopping server is repeated, at the next
# address if there are several: gRPC ends a few calls with CANCELLED while a server drains. A server that has too much
# to do for a moment rejects a call and says when to repeat it; where most calls fail, none is repeated.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [
                {"service": f"reckg.v1.{name}"} for name in ("RecommenderService", "EventService", "CatalogService")
            ],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 200, "tokenRatio": 0.1},  # a failure takes one, and a success gives a tenth
}
CHANNELS = 8  # connections: a server's workers share its port, and each connection stays with one of them

AttributeValue = str | float | bool | Sequence[str]


class RecommenderClient:
    """Calls a recommendation server; safe to share between threads.

    Every method raises grpc.RpcError: its ``code()`` and ``details()`` say what is wrong. ``timeout_s`` is the deadline
    of a call, its repetitions included.

    Args:
        address: ``host:port``, or several servers' ``ip:port`` with commas between.
        timeout_s: of each call, unless it is given another.
        token: as `reckg token create` printed it; sent with every call. Without TLS anybody on the way can read it.
        ca: PEM of the authority that signed the server's certificate; turns TLS on. b"": those that the system trusts.
        certificate, key: PEM, for servers that ask for a client's certificate.
        channels: connections; a call takes the one with the fewest calls under way.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 2.0,
        token: str = "",
        ca: bytes | None = None,
        certificate: bytes | None = None,
        key: bytes | None = None,
        channels: int = CHANNELS,
    ) -> None:
        self.timeout_s = timeout_s
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        credentials = None if ca is None else grpc.ssl_channel_credentials(ca or None, key, certificate)
        target = f"ipv4:{address}" if "," in address else address
        self._channels = [_channel(target, credentials) for _ in range(channels)]
        self._under_way = [0] * channels
        self._turn, self._choosing = itertools.cycle(range(channels)), threading.Lock()
        self._recommender = [recommender_pb2_grpc.RecommenderServiceStub(channel) for channel in self._channels]
        self._events = [event_pb2_grpc.EventServiceStub(channel) for channel in self._channels]
        self._catalog = [catalog_pb2_grpc.CatalogServiceStub(channel) for channel in self._channels]
        self._admin = [admin_pb2_grpc.AdminServiceStub(channel) for channel in self._channels]

    def recommend(
        self,
        user_id: str = "",
        k: int = 10,
        *,
        include_seen: bool = False,
        recent_items: Sequence[str] = (),
        attributes: Mapping[str, AttributeValue] | None = None,
        timeout_s: float | None = None,
        **fields: Any,
    ) -> pb.RecommendResponse:
        """The k items that a user is most likely to want next; see the .proto for the fields of both messages.

        Args:
            recent_items: ids of the user's latest items, oldest first.
            attributes: a column of the users table to its value, or to a list of strings.
            fields: further fields of RecommendRequest, as filter or context; `item_filter` makes a filter.
        """
        request = pb.RecommendRequest(
            user_id=user_id,
            max_item_count=k,
            include_seen=include_seen,
            recent_item_ids=recent_items,
            attributes=_user_attributes(attributes),
            **fields,
        )
        return self._call(self._recommender, "Recommend", request, timeout_s)

    def batch_recommend(
        self, user_ids: Sequence[str], k: int = 10, *, timeout_s: float = 60.0, **fields: Any
    ) -> Iterator[pb.BatchRecommendResponse]:
        """One answer for each user, in order; the server works no further ahead than this iterator is read."""
        request = pb.BatchRecommendRequest(user_ids=user_ids, max_item_count=k, **fields)
        number = self._begin()
        call = self._recommender[number].BatchRecommend(request, timeout=timeout_s, metadata=self._metadata)
        call.add_done_callback(lambda _: self._end(number))
        return call

    def similar_items(
        self, item_id: str, k: int = 10, *, timeout_s: float | None = None, **fields: Any
    ) -> pb.SimilarItemsResponse:
        """The k items closest to one item; see the .proto for the response."""
        request = pb.SimilarItemsRequest(item_id=item_id, max_item_count=k, **fields)
        return self._call(self._recommender, "SimilarItems", request, timeout_s)

    def rank_items(
        self,
        item_ids: Sequence[str],
        user_id: str = "",
        *,
        recent_items: Sequence[str] = (),
        attributes: Mapping[str, AttributeValue] | None = None,
        timeout_s: float | None = None,
        **fields: Any,
    ) -> pb.RankItemsResponse:
        """Your own candidates, in the order in which the user is most likely to want them."""
        request = pb.RankItemsRequest(
            user_id=user_id,
            item_ids=item_ids,
            recent_item_ids=recent_items,
            attributes=_user_attributes(attributes),
            **fields,
        )
        return self._call(self._recommender, "RankItems", request, timeout_s)

    def get_item(self, item_id: str, *, timeout_s: float | None = None) -> pb.GetItemResponse:
        """What the server knows of one item."""
        return self._call(self._recommender, "GetItem", pb.GetItemRequest(item_id=item_id), timeout_s)

    def record_events(
        self, events: Iterable[event_pb2.Event | Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> event_pb2.RecordEventsResponse:
        """Stores what users did; stored for good when it returns.

        Args:
            events: messages, or their fields: event_id, user_id, item_id and, optional, time (a datetime), type,
                weight, request_id.
        """
        messages = [each if isinstance(each, event_pb2.Event) else event_pb2.Event(**each) for each in events]
        return self._call(self._events, "RecordEvents", event_pb2.RecordEventsRequest(events=messages), timeout_s)

    def upsert_items(
        self, items: Mapping[str, Mapping[str, AttributeValue]], *, timeout_s: float | None = None
    ) -> catalog_pb2.UpsertItemsResponse:
        """Adds or changes items: raw item id to column to value. A sequence is a list."""
        messages = [
            item_pb2.Item(item_id=item_id, attributes=_attributes(item_pb2.ItemAttribute, columns))
            for item_id, columns in items.items()
        ]
        return self._call(self._catalog, "UpsertItems", catalog_pb2.UpsertItemsRequest(items=messages), timeout_s)

    def remove_items(
        self, item_ids: Sequence[str], *, timeout_s: float | None = None
    ) -> catalog_pb2.RemoveItemsResponse:
        """Removes items: they are never recommended again, until they are upserted anew."""
        return self._call(self._catalog, "RemoveItems", catalog_pb2.RemoveItemsRequest(item_ids=item_ids), timeout_s)

    def set_availability(
        self, item_ids: Sequence[str], available: bool, *, timeout_s: float | None = None
    ) -> catalog_pb2.SetAvailabilityResponse:
        """Says whether items may be recommended at present."""
        request = catalog_pb2.SetAvailabilityRequest(item_ids=item_ids, available=available)
        return self._call(self._catalog, "SetAvailability", request, timeout_s)

    def load_bundle(self, bundle_version: str = "", *, timeout_s: float = 300.0) -> admin_pb2.LoadBundleResponse:
        """Serves another bundle of the server's bundle store; the latest, unless a version is given."""
        request = admin_pb2.LoadBundleRequest(bundle_version=bundle_version)
        return self._call(self._admin, "LoadBundle", request, timeout_s)

    def rollback_bundle(self, *, timeout_s: float = 300.0) -> admin_pb2.RollbackBundleResponse:
        """Serves the bundle again that was served before."""
        return self._call(self._admin, "RollbackBundle", admin_pb2.RollbackBundleRequest(), timeout_s)

    def describe_serving(self, *, timeout_s: float | None = None) -> admin_pb2.DescribeServingResponse:
        """The server's version, bundle, workers and settings."""
        return self._call(self._admin, "DescribeServing", admin_pb2.DescribeServingRequest(), timeout_s)

    def _call(self, stubs: Sequence[Any], method: str, request: Any, timeout_s: float | None) -> Any:
        number = self._begin()
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        try:
            return getattr(stubs[number], method)(request, timeout=timeout_s, metadata=self._metadata)
        finally:
            self._end(number)

    def raw_call(self, method: str) -> Callable[..., Any]:
        """A function that starts a call of `method` (/package.Service/Method) with the bytes of a request, and returns
        its future, whose result are the bytes of the reply. For load generators."""
        calls = [channel.unary_unary(method) for channel in self._channels]

        def start(request: bytes, timeout: float) -> Any:
            number = self._begin()
            call = calls[number].future(request, timeout=timeout, metadata=self._metadata)
            call.add_done_callback(lambda _: self._end(number))
            return call

        return start

    def _begin(self) -> int:
        """The connection with the fewest calls under way, of several the next in turn.

        Chance spreads the connections over a server's workers. One that has few of them answers sooner on each, and so
        gets more calls.
        """
        with self._choosing:
            first, n = next(self._turn), len(self._under_way)
            number = min(range(n), key=lambda each: (self._under_way[each], (each - first) % n))
            self._under_way[number] += 1
        return number

    def _end(self, number: int) -> None:
        with self._choosing:
            self._under_way[number] -= 1

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> RecommenderClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def item_filter(
    allow: Sequence[str] | None = None,
    deny: Sequence[str] = (),
    where: Mapping[str, AttributeValue | Mapping[str, float]] | None = None,
) -> pb.ItemFilter:
    """A filter for recommend: `item_filter(where={"genre": ["drama", "crime"], "year": {">=": 2010}})`.

    Args:
        allow: the only items; None: any. deny: items to leave out.
        where: a column to a value, to a list of values, or to bounds by >, >=, <, <=.
    """
    bounds = {">=": "at_least", "<=": "at_most", ">": "above", "<": "below"}
    predicates = []
    for column, wanted in (where or {}).items():
        if isinstance(wanted, Mapping):
            limits = pb.NumberRange(**{bounds[sign]: number for sign, number in wanted.items()})
            predicates.append(pb.AttributePredicate(column=column, range=limits))
        else:
            predicates += _attributes(_predicate, {column: wanted})
    allowed = None if allow is None else pb.ItemIdList(item_ids=allow)
    return pb.ItemFilter(allowed_items=allowed, denied_item_ids=deny, predicates=predicates)


def _predicate(name: str, values: Sequence[str] = (), numbers: Sequence[float] = ()) -> pb.AttributePredicate:
    return pb.AttributePredicate(column=name, values=values, numbers=numbers)


def _channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    options = [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", 50),  # a connection may meet a worker that ends: calls wait no second
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.use_local_subchannel_pool", 1),  # else all channels share one connection
    ]
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


def _user_attributes(given: Mapping[str, AttributeValue] | None) -> list[pb.UserAttribute]:
    return _attributes(pb.UserAttribute, given or {})


def _attributes(message: Any, given: Mapping[str, Any]) -> list[Any]:
    """Messages with name, values and numbers: a number or numbers, or a string or strings; a boolean as in tables."""
    out = []
    for name, value in given.items():
        values = [value] if isinstance(value, str | int | float) else list(value)
        values = [str(each).lower() if isinstance(each, bool) else each for each in values]
        of_numbers = bool(values) and not isinstance(values[0], str)
        out.append(message(name=name, **{"numbers" if of_numbers else "values": values}))
    return out


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


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """TLS and token, for command lines; the token comes from the variable RECKG_TOKEN, never from an argument."""
    parser.add_argument("--ca", type=Path, metavar="PEM", help="authority of the server's certificate; turns TLS on")
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="of this client, where the server asks for one")
    parser.add_argument("--key", type=Path, metavar="PEM", help="its private key")


def connection(options: argparse.Namespace) -> dict[str, Any]:
    """RecommenderClient's arguments from those of `add_connection_arguments` and the environment."""
    files = {name: getattr(options, name) for name in ("ca", "certificate", "key")}
    read = {name: None if path is None else path.read_bytes() for name, path in files.items()}
    return {**read, "token": os.environ.get("RECKG_TOKEN", "")}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ask a recommendation server for one user's items.")
    parser.add_argument("address", help="host:port, as the server prints it")
    parser.add_argument("user_id", nargs="?", default="", help="may be left out where recent items are given")
    parser.add_argument("--recent", nargs="+", default=[], metavar="ITEM_ID", help="latest items, oldest first")
    parser.add_argument("--k", type=int, default=10, help="items wanted (default: %(default)s)")
    add_connection_arguments(parser)
    options = parser.parse_args(arguments)
    try:
        with RecommenderClient(options.address, timeout_s=10.0, **connection(options)) as client:
            print(format_response(client.recommend(options.user_id, options.k, recent_items=options.recent)))
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0
