"""The client of a reckg server. It needs only grpcio, protobuf and the generated messages.

with RecommenderClient("127.0.0.1:50051") as client:
    for item in client.recommend("some user", k=10).items:
        print(item.title, item.score)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import grpc

from reckg.v1 import admin_pb2, catalog_pb2, event_pb2, item_pb2
from reckg.v1 import recommender_pb2 as pb
from reckg.v1.admin_pb2_grpc import AdminServiceStub
from reckg.v1.catalog_pb2_grpc import CatalogServiceStub
from reckg.v1.event_pb2_grpc import EventServiceStub
from reckg.v1.recommender_pb2_grpc import RecommenderServiceStub
from serving.client.attributes import AttributeValue, to_messages
from serving.client.connections import CHANNELS, Connections, Stub


class RecommenderClient:
    """A client of a recommendation server. Threads may share it. It connects at the first call.

    Every method takes ``timeout_s``, the deadline of the call with its repetitions, in seconds. None stands for the
    client's own ``timeout_s``. Every method raises grpc.RpcError, whose ``code()`` and ``details()`` name the reason.
    The .proto files describe the fields of all messages.

    Args:
        address: ``host:port``, or ``ip:port`` of several servers with commas between.
        timeout_s: deadline of each call, unless the call gets another one.
        token: printed by `reckg token create`, and sent with every call. Without TLS anybody on the way can read it.
        ca: PEM of the authority that signed the server's certificate; turns TLS on. b"": the system's authorities.
        certificate: PEM of the client, for servers that ask for a client's certificate.
        key: PEM of the certificate's private key.
        channels: number of connections. A call takes the connection with the fewest calls under way.

    Example:
        >>> from serving.client import RecommenderClient
        >>> shop = RecommenderClient("127.0.0.1:50051", timeout_s=1.0)
        >>> shop.timeout_s
        1.0
        >>> shop.close()
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
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        credentials = None if ca is None else grpc.ssl_channel_credentials(ca or None, key, certificate)
        self._connections = Connections(address, credentials, metadata, channels)

    def recommend(
        self,
        user_id: str = "",
        k: int = 10,
        *,
        include_seen: bool | None = None,
        recent_items: Sequence[str] = (),
        attributes: Mapping[str, AttributeValue] | None = None,
        timeout_s: float | None = None,
        **fields: Any,
    ) -> pb.RecommendResponse:
        """Recommends k items to a user.

        Args:
            user_id: raw id; "" for a visitor with recent items or attributes.
            k: number of items.
            include_seen: whether items that the user took before may be recommended. None: as the bundle was built.
            recent_items: ids of the user's latest items, oldest first.
            attributes: column of the users table to its value, or to a list of strings.
            fields: further fields of RecommendRequest, as ``filter`` (see `item_filter`), ``diversity`` or ``context``.

        Returns:
            The items with titles and scores, best first, and notes about the answer.

        Raises:
            grpc.RpcError: INVALID_ARGUMENT for a wrong field, RESOURCE_EXHAUSTED for an overloaded server.

        Example:
            >>> response = client.recommend("u03", k=3)
            >>> len(response.items), response.items[0].score >= response.items[1].score
            (3, True)
            >>> visitor = client.recommend(k=5, recent_items=["i01", "i02"], attributes={"city": "Rome"})
            >>> len(visitor.items)
            5
        """
        request = pb.RecommendRequest(
            user_id=user_id,
            max_item_count=k,
            include_seen=include_seen is True,
            exclude_seen=include_seen is False,
            recent_item_ids=recent_items,
            attributes=to_messages(pb.UserAttribute, attributes or {}),
            **fields,
        )
        return self._call(RecommenderServiceStub, "Recommend", request, timeout_s)

    def batch_recommend(
        self, user_ids: Sequence[str], k: int = 10, *, timeout_s: float = 60.0, **fields: Any
    ) -> Iterator[pb.BatchRecommendResponse]:
        """Recommends k items to each of many users.

        Args:
            user_ids: raw ids.
            k: number of items for each user.
            fields: further fields of BatchRecommendRequest, as ``include_seen`` or ``filter``.

        Returns:
            An iterator over the answers, one for each user, in order. The server works as fast as it is read.

        Raises:
            grpc.RpcError: from the iterator, as of `recommend`.

        Example:
            >>> for answer in client.batch_recommend(["u03", "u04"], k=2):
            ...     print(answer.user_id, len(answer.recommendations.items))
            u03 2
            u04 2
        """
        request = pb.BatchRecommendRequest(user_ids=user_ids, max_item_count=k, **fields)
        return self._connections.call_stream(RecommenderServiceStub, "BatchRecommend", request, timeout_s)

    def similar_items(
        self, item_id: str, k: int = 10, *, timeout_s: float | None = None, **fields: Any
    ) -> pb.SimilarItemsResponse:
        """Finds the k items closest to one item.

        Args:
            item_id: raw id.
            k: number of items.
            fields: further fields of SimilarItemsRequest, as ``filter``.

        Returns:
            The items with titles and scores, closest first.

        Raises:
            grpc.RpcError: NOT_FOUND for an unknown item.

        Example:
            >>> similar = client.similar_items("i07", k=3)
            >>> len(similar.items)
            3
        """
        request = pb.SimilarItemsRequest(item_id=item_id, max_item_count=k, **fields)
        return self._call(RecommenderServiceStub, "SimilarItems", request, timeout_s)

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
        """Orders candidates of your own for a user.

        Args:
            item_ids: raw ids of the candidates.
            user_id: raw id; "" for a visitor with recent items or attributes.
            recent_items: ids of the user's latest items, oldest first.
            attributes: column of the users table to its value, or to a list of strings.
            fields: further fields of RankItemsRequest, as ``include_feature_values``.

        Returns:
            The known candidates, best first, and the ids of the unknown ones.

        Raises:
            grpc.RpcError: INVALID_ARGUMENT for repeated candidates or a wrong field.

        Example:
            >>> ranked = client.rank_items(["i01", "i02", "no such item"], "u03")
            >>> sorted(item.item_id for item in ranked.items), list(ranked.unknown_item_ids)
            (['i01', 'i02'], ['no such item'])
        """
        request = pb.RankItemsRequest(
            user_id=user_id,
            item_ids=item_ids,
            recent_item_ids=recent_items,
            attributes=to_messages(pb.UserAttribute, attributes or {}),
            **fields,
        )
        return self._call(RecommenderServiceStub, "RankItems", request, timeout_s)

    def get_item(self, item_id: str, *, timeout_s: float | None = None) -> pb.GetItemResponse:
        """Returns one item of the server's catalogue.

        Args:
            item_id: raw id.

        Returns:
            The item's title and attributes, and whether it is available.

        Raises:
            grpc.RpcError: NOT_FOUND for an unknown item.

        Example:
            >>> client.get_item("i07").title
            'heidi a town dune'
        """
        return self._call(RecommenderServiceStub, "GetItem", pb.GetItemRequest(item_id=item_id), timeout_s)

    def record_events(
        self, events: Iterable[event_pb2.Event | Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> event_pb2.RecordEventsResponse:
        """Stores events of users. They are durable when the call returns.

        Args:
            events: messages, or dicts of their fields: event_id, user_id, item_id and, optional, time (a datetime),
                type, weight, request_id. The server stores one event for each event_id.

        Returns:
            The numbers of recorded events, duplicates and unknown items.

        Raises:
            grpc.RpcError: INVALID_ARGUMENT for a wrong field, FAILED_PRECONDITION for a server without a store.

        Example:
            >>> event = {"event_id": "order 17", "user_id": "u05", "item_id": "i07"}
            >>> client.record_events([event]).recorded_count
            1
            >>> client.record_events([event]).duplicate_count
            1
        """
        messages = [each if isinstance(each, event_pb2.Event) else event_pb2.Event(**each) for each in events]
        return self._call(EventServiceStub, "RecordEvents", event_pb2.RecordEventsRequest(events=messages), timeout_s)

    def upsert_items(
        self, items: Mapping[str, Mapping[str, AttributeValue]], *, timeout_s: float | None = None
    ) -> catalog_pb2.UpsertItemsResponse:
        """Adds or changes items.

        Args:
            items: raw id to column to value. A list column takes a sequence of strings.

        Returns:
            The catalogue revision that holds the items, and the attributes that the bundle does not know.

        Raises:
            grpc.RpcError: INVALID_ARGUMENT for a value that does not match its column.

        Example:
            >>> novel = {"title": "the sea", "price": 9.5, "genres": ["x"], "cover": "blue"}
            >>> response = client.upsert_items({"n1": novel})
            >>> response.catalog_revision > 0, list(response.unknown_attributes)
            (True, ['cover'])
        """
        messages = [
            item_pb2.Item(item_id=item_id, attributes=to_messages(item_pb2.ItemAttribute, columns))
            for item_id, columns in items.items()
        ]
        return self._call(CatalogServiceStub, "UpsertItems", catalog_pb2.UpsertItemsRequest(items=messages), timeout_s)

    def remove_items(
        self, item_ids: Sequence[str], *, timeout_s: float | None = None
    ) -> catalog_pb2.RemoveItemsResponse:
        """Removes items. They are not recommended again until they are upserted anew.

        Args:
            item_ids: raw ids.

        Returns:
            The catalogue revision that holds the change.

        Raises:
            grpc.RpcError: INVALID_ARGUMENT for repeated ids.

        Example:
            >>> client.remove_items(["i38"]).catalog_revision > 0
            True
        """
        return self._call(
            CatalogServiceStub, "RemoveItems", catalog_pb2.RemoveItemsRequest(item_ids=item_ids), timeout_s
        )

    def set_availability(
        self, item_ids: Sequence[str], available: bool, *, timeout_s: float | None = None
    ) -> catalog_pb2.SetAvailabilityResponse:
        """Sets whether items may be recommended, as when they are sold out.

        Args:
            item_ids: raw ids.
            available: whether they may be recommended.

        Returns:
            The catalogue revision that holds the change.

        Raises:
            grpc.RpcError: INVALID_ARGUMENT for repeated ids.

        Example:
            >>> client.set_availability(["i37"], available=False).catalog_revision > 0
            True
        """
        request = catalog_pb2.SetAvailabilityRequest(item_ids=item_ids, available=available)
        return self._call(CatalogServiceStub, "SetAvailability", request, timeout_s)

    def load_bundle(self, bundle_version: str = "", *, timeout_s: float = 300.0) -> admin_pb2.LoadBundleResponse:
        """Serves another version of the server's bundle store.

        Args:
            bundle_version: name of the version; "": the latest.

        Returns:
            The versions after and before the swap.

        Raises:
            grpc.RpcError: NOT_FOUND for an unknown version, FAILED_PRECONDITION for a damaged bundle.

        Example:
            >>> client.load_bundle("world-1").bundle_version
            'world-1'
        """
        request = admin_pb2.LoadBundleRequest(bundle_version=bundle_version)
        return self._call(AdminServiceStub, "LoadBundle", request, timeout_s)

    def rollback_bundle(self, *, timeout_s: float = 300.0) -> admin_pb2.RollbackBundleResponse:
        """Serves the previous bundle again.

        Returns:
            The versions after and before the swap.

        Raises:
            grpc.RpcError: FAILED_PRECONDITION before the first swap.

        Example:
            >>> loaded = [client.load_bundle(version).bundle_version for version in ("world-1", "world-2")]
            >>> client.rollback_bundle().bundle_version
            'world-1'
        """
        return self._call(AdminServiceStub, "RollbackBundle", admin_pb2.RollbackBundleRequest(), timeout_s)

    def describe_serving(self, *, timeout_s: float | None = None) -> admin_pb2.DescribeServingResponse:
        """Describes the server.

        Returns:
            Versions of server and bundle, numbers of users and items, workers and settings.

        Raises:
            grpc.RpcError: PERMISSION_DENIED for a token without the scope "admin".

        Example:
            >>> served = client.describe_serving()
            >>> served.user_count, served.worker_count
            (30, 1)
        """
        return self._call(AdminServiceStub, "DescribeServing", admin_pb2.DescribeServingRequest(), timeout_s)

    def _call(self, stub: Stub, method: str, request: Any, timeout_s: float | None) -> Any:
        return self._connections.call(stub, method, request, self.timeout_s if timeout_s is None else timeout_s)

    def raw_call(self, method: str) -> Callable[..., Any]:
        """Makes a function that starts calls with serialized messages, for load generators.

        Args:
            method: full name, as /reckg.v1.RecommenderService/Recommend.

        Returns:
            A function of the request's bytes and the timeout in seconds. It returns a future with the reply's bytes.

        Raises:
            grpc.RpcError: from the future's result.

        Example:
            >>> from reckg.v1.recommender_pb2 import GetItemRequest, GetItemResponse
            >>> start = client.raw_call("/reckg.v1.RecommenderService/GetItem")
            >>> reply = start(GetItemRequest(item_id="i07").SerializeToString(), timeout=30.0).result()
            >>> GetItemResponse.FromString(reply).title
            'heidi a town dune'
        """
        return self._connections.raw_call(method)

    def close(self) -> None:
        """Closes all connections.

        Example:
            >>> from serving.client import RecommenderClient
            >>> RecommenderClient("127.0.0.1:50051").close()
        """
        self._connections.close()

    def __enter__(self) -> RecommenderClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
