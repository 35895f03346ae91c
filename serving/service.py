"""RecommenderService: from messages to the library and back. No arithmetic here."""

from __future__ import annotations

import grpc

from reckg.recommend import Recommendations, Recommender
from reckg.v1 import recommender_pb2 as pb
from reckg.v1 import recommender_pb2_grpc
from serving.status import ExpiredRequestError, InvalidRequestError, StartingError, with_status

DEFAULT_ITEM_COUNT = 10
MAX_ITEM_COUNT = 500
RERANK_TIME_S = 0.010  # with less time left than this, the items come in retrieval order, and the response says so

FALLBACKS = {None: pb.FALLBACK_NONE, "popular": pb.FALLBACK_POPULAR}
DEGRADED_REASONS = {"cold_user": pb.DEGRADED_REASON_COLD_USER, "no_rerank": pb.DEGRADED_REASON_NO_RERANK}


class RecommenderService(recommender_pb2_grpc.RecommenderServiceServicer):
    """Answers once ``recommender`` is set; UNAVAILABLE before."""

    def __init__(self, recommender: Recommender | None = None) -> None:
        self.recommender = recommender

    @with_status
    def Recommend(self, request: pb.RecommendRequest, context: grpc.ServicerContext) -> pb.RecommendResponse:
        user_id = _required("user_id", request.user_id)
        k = _item_count(request.max_item_count)
        remaining_s = _remaining_s(context)
        found = self._recommender().recommend(
            user_id, k, exclude_seen=not request.include_seen, rerank=remaining_s >= RERANK_TIME_S
        )
        return pb.RecommendResponse(
            items=_items(found),
            bundle_version=found.bundle_version,
            fallback=FALLBACKS[found.fallback],
            degraded_reasons=[DEGRADED_REASONS[reason] for reason in found.degraded],
        )

    @with_status
    def SimilarItems(self, request: pb.SimilarItemsRequest, context: grpc.ServicerContext) -> pb.SimilarItemsResponse:
        item_id = _required("item_id", request.item_id)
        k = _item_count(request.max_item_count)
        _remaining_s(context)
        found = self._recommender().similar_items(item_id, k)
        return pb.SimilarItemsResponse(items=_items(found), bundle_version=found.bundle_version)

    def _recommender(self) -> Recommender:
        recommender = self.recommender
        if recommender is None:
            raise StartingError("the bundle is still loading; try again")
        return recommender


def _items(found: Recommendations) -> list[pb.ScoredItem]:
    return [pb.ScoredItem(item_id=item.item_id, title=item.title, score=item.score) for item in found.items]


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
