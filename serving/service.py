"""RecommenderService: from messages to the library and back. No arithmetic here."""

from __future__ import annotations

from collections.abc import Iterable

import grpc

from reckg.recommend import Recommendations
from reckg.v1 import recommender_pb2 as pb
from reckg.v1 import recommender_pb2_grpc
from serving.serving_state import ServingState
from serving.status import ExpiredRequestError, InvalidRequestError, with_status

DEFAULT_ITEM_COUNT = 10
MAX_ITEM_COUNT = 500
MAX_RECENT_ITEMS = 500
RERANK_TIME_S = 0.010  # with less time left than this, the items come in retrieval order, and the response says so

FALLBACKS = {None: pb.FALLBACK_NONE, "popular": pb.FALLBACK_POPULAR}
DEGRADED_REASONS = {
    "cold_user": pb.DEGRADED_REASON_COLD_USER,
    "no_rerank": pb.DEGRADED_REASON_NO_RERANK,
    "unknown_recent_items": pb.DEGRADED_REASON_UNKNOWN_RECENT_ITEMS,
    "unknown_attributes": pb.DEGRADED_REASON_UNKNOWN_ATTRIBUTES,
}


class RecommenderService(recommender_pb2_grpc.RecommenderServiceServicer):
    """Answers from the state's present snapshot; UNAVAILABLE before there is one."""

    def __init__(self, state: ServingState) -> None:
        self.state = state

    @with_status
    def Recommend(self, request: pb.RecommendRequest, context: grpc.ServicerContext) -> pb.RecommendResponse:
        if not request.recent_item_ids and not request.attributes:
            _required("user_id", request.user_id)
        if len(request.recent_item_ids) > MAX_RECENT_ITEMS:
            raise InvalidRequestError(
                f"recent_item_ids must be at most {MAX_RECENT_ITEMS}, got {len(request.recent_item_ids)}"
            )
        k = _item_count(request.max_item_count)
        attributes = _attributes(request.attributes)
        remaining_s = _remaining_s(context)
        found = self.state.current.recommender.recommend(
            request.user_id or None,
            k,
            exclude_seen=not request.include_seen,
            rerank=remaining_s >= RERANK_TIME_S,
            recent_items=list(request.recent_item_ids),
            attributes=attributes,
        )
        return pb.RecommendResponse(
            items=_items(found),
            bundle_version=found.bundle_version,
            fallback=FALLBACKS[found.fallback],
            degraded_reasons=[DEGRADED_REASONS[reason] for reason in found.degraded],
            unknown_recent_item_ids=found.unknown_recent_items,
            unknown_attributes=found.unknown_attributes,
        )

    @with_status
    def SimilarItems(self, request: pb.SimilarItemsRequest, context: grpc.ServicerContext) -> pb.SimilarItemsResponse:
        item_id = _required("item_id", request.item_id)
        k = _item_count(request.max_item_count)
        _remaining_s(context)
        found = self.state.current.recommender.similar_items(item_id, k)
        return pb.SimilarItemsResponse(items=_items(found), bundle_version=found.bundle_version)


def _items(found: Recommendations) -> list[pb.ScoredItem]:
    return [pb.ScoredItem(item_id=item.item_id, title=item.title, score=item.score) for item in found.items]


def _attributes(given: Iterable[pb.UserAttribute]) -> dict[str, list[str | float]]:
    """The values of each column. Raises InvalidRequestError where a name is missing or comes twice."""
    attributes: dict[str, list[str | float]] = {}
    for attribute in given:
        if _required("attributes.name", attribute.name) in attributes:
            raise InvalidRequestError(f"attributes.name must not repeat, got {attribute.name!r} twice")
        attributes[attribute.name] = [*attribute.values, *attribute.numbers]
    return attributes


def _required(field: str, value: str) -> str:
    if not value:
        raise InvalidRequestError(f"{field} must not be empty")
    return value


def _item_count(asked: int) -> int:
    if not 0 <= asked <= MAX_ITEM_COUNT:
        raise InvalidRequestError(f"max_item_count must be 0..{MAX_ITEM_COUNT}, got {asked}")
    return asked or DEFAULT_ITEM_COUNT


def _remaining_s(context: grpc.ServicerContext) -> float:
    """Seconds until the client's deadline; infinity without one. Raises ExpiredRequestError."""
    remaining_s = context.time_remaining()
    if not context.is_active() or (remaining_s is not None and remaining_s <= 0):
        raise ExpiredRequestError("the deadline passed before the work began")
    return float("inf") if remaining_s is None else remaining_s
