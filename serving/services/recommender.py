"""RecommenderService: from messages to the library and back. No arithmetic here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from reckg.errors import ConfigError
from reckg.ranking.diversity import Diversity
from reckg.recommend.answers import DegradedReason, Recommendations
from reckg.recommend.deadline import Stages
from reckg.v1 import recommender_pb2 as pb
from reckg.v1 import recommender_pb2_grpc
from serving.calls.call import CALL
from serving.catalog.snapshot import Served, ServingState
from serving.errors import InvalidRequestError
from serving.experiment.experiment import INTERLEAVED, Answer, Experiment, Fixed
from serving.experiment.served_log import ServedLog, ShownAnswer
from serving.services import messages
from serving.services.new_events import new_events
from serving.settings import ExperimentSettings, LimitSettings, VariantSettings
from serving.store import StateStore, StoredEvent, StoreError


@dataclass(frozen=True)
class RequestedUser:
    """Who asks: what a request says of its user, and the user's recorded events that the bundle does not hold."""

    user_id: str | None
    events: Sequence[StoredEvent]
    recent: Sequence[str]
    attributes: dict[str, list[str | float]]
    context: Sequence[str]
    no_events: bool = False  # whether there may be some that are not counted

    def arguments(self) -> dict[str, Any]:
        """As Recommender's methods take them."""
        return {
            "recent_items": [*(event.item_id for event in self.events), *self.recent],
            "recent_times": [event.time for event in self.events],
            "attributes": self.attributes,
            "context_items": self.context,
        }


class RecommenderService(recommender_pb2_grpc.RecommenderServiceServicer):
    """Answers from the state's present snapshot; UNAVAILABLE before there is one.

    Args:
        store: of events; None: there is none, and nothing is missing.
        experiment: variants that are compared; None: there are none.
        log: gets what Recommend shows; clock: its epoch seconds.
    """

    def __init__(
        self,
        state: ServingState,
        limits: LimitSettings | None = None,
        store: StateStore | None = None,
        *,
        experiment: Experiment | None = None,
        log: ServedLog | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.state, self.store, self.log, self.clock = state, store, log, clock
        self.limits = limits or LimitSettings()
        self.experiment = experiment or Experiment(ExperimentSettings(), state)

    def Recommend(self, request: pb.RecommendRequest, context: grpc.ServicerContext) -> pb.RecommendResponse:
        stages = self._stages(context)
        if not request.recent_item_ids and not request.attributes:
            messages.required("user_id", request.user_id)
        request_id = messages.request_id(request.request_id)
        response, answer = self._recommend(self.experiment, request, stages, request_id)
        if self.log is not None:
            self.log.record(_shown_answer(request, response, answer, int(self.clock())))
        return response

    def BatchRecommend(
        self, request: pb.BatchRecommendRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.BatchRecommendResponse]:
        experiment = Experiment(ExperimentSettings(), Fixed(self.state.current))  # one snapshot for the whole stream
        if not request.user_ids:
            raise InvalidRequestError("user_ids must not be empty")
        messages.at_most("user_ids", request.user_ids, messages.MAX_BATCH_USERS)
        request_id = messages.request_id(request.request_id)
        single = pb.RecommendRequest(max_item_count=request.max_item_count, include_seen=request.include_seen)
        for name in ("filter", "diversity"):
            if request.HasField(name):
                getattr(single, name).CopyFrom(getattr(request, name))
        for place, user_id in enumerate(request.user_ids):
            single.user_id = messages.required(f"user_ids[{place}]", user_id)
            response, _ = self._recommend(experiment, single, self._stages(context), request_id)
            yield pb.BatchRecommendResponse(user_id=user_id, recommendations=response)

    def SimilarItems(self, request: pb.SimilarItemsRequest, context: grpc.ServicerContext) -> pb.SimilarItemsResponse:
        served = self.state.current
        item_id = messages.required("item_id", request.item_id)
        k = messages.item_count(request.max_item_count, self.limits.max_items)
        filters = messages.filters(request)
        found = served.recommender.similar_items(item_id, k, filters=filters)
        return pb.SimilarItemsResponse(
            items=messages.scored_items(found.items),
            bundle_version=found.bundle_version,
            catalog_revision=served.catalog_revision,
        )

    def RankItems(self, request: pb.RankItemsRequest, context: grpc.ServicerContext) -> pb.RankItemsResponse:
        served, stages = self.state.current, self._stages(context)
        if not request.recent_item_ids and not request.attributes:
            messages.required("user_id", request.user_id)
        item_ids = messages.ids("item_ids", request.item_ids, messages.MAX_CANDIDATES)
        request_id = messages.request_id(request.request_id)
        user = _requested_user(served, request, self._recorded(request, stages))
        ranked = served.recommender.rank_items(
            user.user_id, item_ids, **user.arguments(), with_features=request.include_feature_values, stages=stages
        )
        return pb.RankItemsResponse(
            items=messages.scored_items(ranked.order.items),
            unknown_item_ids=ranked.unknown_items,
            **self._said(ranked.order, served, user, request_id),
        )

    def GetItem(self, request: pb.GetItemRequest, context: grpc.ServicerContext) -> pb.GetItemResponse:
        served = self.state.current
        item_id = messages.required("item_id", request.item_id)
        bundle = served.recommender.bundle
        idx = bundle.item_ids.idx(item_id)
        row = bundle.row(idx)
        return pb.GetItemResponse(
            item=messages.item_of(row),
            title=(row[bundle.title_column] or "") if bundle.title_column else "",
            available=bool(bundle.available[idx]),
            added=served.is_added(idx),
            bundle_version=served.bundle_version,
            catalog_revision=served.catalog_revision,
        )

    def _recommend(
        self, experiment: Experiment, request: pb.RecommendRequest, stages: Stages, request_id: str
    ) -> tuple[pb.RecommendResponse, Answer]:
        k = messages.item_count(request.max_item_count, self.limits.max_items)
        filters, diversity = messages.filters(request), messages.diversity(request)
        recorded = self._recorded(request, stages)
        asked: dict[int, RequestedUser] = {}  # by what was served

        def ask(served: Served, variant: VariantSettings | None, depth: int) -> Recommendations:
            user = asked[id(served)] = _requested_user(served, request, recorded)
            chosen = Diversity(variant.diversity) if variant is not None and variant.diversity else None
            return served.recommender.recommend(
                user.user_id,
                depth,
                not request.include_seen,
                **user.arguments(),
                rerank=variant is None or variant.rerank,
                diversity=diversity or chosen,
                filters=filters,
                with_features=request.include_feature_values,
                with_sources=request.include_source_scores,
                stages=stages,
            )

        try:
            answer = experiment.answer(request.user_id or request_id, k, request_id, ask)
        except ConfigError as error:
            if diversity is None:
                raise
            raise InvalidRequestError(str(error)) from error
        items = messages.scored_items(answer.found.items)
        if answer.variant == INTERLEAVED:
            for item, name in zip(items, answer.variants, strict=True):
                item.variant = name
        said = self._said(answer.found, answer.served, asked[id(answer.served)], request_id)
        return pb.RecommendResponse(items=items, variant=answer.variant, **said), answer

    def _recorded(self, request: Any, stages: Stages) -> Sequence[StoredEvent] | None:
        """The user's recorded events; None where they cannot be read."""
        if not request.user_id or self.store is None:
            return ()
        stages.begin("events")
        try:
            return self.store.user_events(request.user_id)
        except StoreError:
            return None

    def _said(self, found: Recommendations, served: Served, user: RequestedUser, request_id: str) -> dict[str, Any]:
        """What the responses of Recommend and RankItems say beside the items; metrics and traces are told as well."""
        reasons: list[DegradedReason | str] = list(found.degraded)
        reasons += ["no_events"] * user.no_events + ["stale_catalog"] * served.stale_catalog
        call = CALL.get(None)
        if call is not None:
            call.report.request_id, call.report.bundle_version = request_id, found.bundle_version
            call.report.degraded += reasons
            is_served = found.bundle_version == self.state.current.bundle_version  # no variant's other bundle
            if is_served and found.items and found.fallback is None and "no_rerank" not in reasons:
                call.report.best_score = max(item.score for item in found.items)  # explored ones are not in order
        return {
            "request_id": request_id,
            "bundle_version": found.bundle_version,
            "fallback": messages.FALLBACKS[found.fallback],
            "degraded_reasons": sorted(messages.DEGRADED_REASONS[reason] for reason in reasons),
            "unknown_recent_item_ids": found.unknown_recent_items,
            "unknown_attributes": found.unknown_attributes,
            "stages": [messages.STAGES[stage] for stage in found.stages],
            "catalog_revision": served.catalog_revision,
            "unknown_context_item_ids": found.unknown_context_items,
        }

    def _stages(self, context: grpc.ServicerContext) -> Stages:
        """The time that is left for the call."""
        left_s = context.time_remaining()
        stages = Stages(
            math.inf if left_s is None else left_s,
            min_rerank_s=self.limits.min_rerank_ms / 1000,
            wanted=context.is_active,
        )
        call = CALL.get(None)
        if call is not None:
            call.report.stages.append(stages)
        return stages


def _requested_user(served: Served, request: Any, recorded: Sequence[StoredEvent] | None) -> RequestedUser:
    """Who a Recommend or RankItems request asks for."""
    bundle = served.recommender.bundle
    events = new_events(bundle, request.user_id, recorded) if recorded else []
    events = [event for event in events if event.item_id in bundle.item_ids]
    unused = recorded is None or (bool(events) and bundle.inductive is None)  # they cannot be taken into account
    return RequestedUser(
        request.user_id or None,
        [] if unused else events,
        messages.recent_items(request.recent_item_ids),
        messages.user_attributes(request.attributes),
        messages.context_items(request.context),
        no_events=unused,
    )


def _shown_answer(
    request: pb.RecommendRequest, response: pb.RecommendResponse, answer: Answer, now: int
) -> ShownAnswer:
    """The answer for the log of what was shown."""
    return ShownAnswer(
        request_id=response.request_id,
        user_id=request.user_id,
        timestamp=now,
        item_ids=[item.item_id for item in answer.found.items],
        scores=[item.score for item in answer.found.items],
        propensities=answer.propensities,
        variants=answer.variants,
        bundle_version=response.bundle_version,
        placement=request.context.placement,
    )
