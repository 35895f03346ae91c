"""RecommenderService: converts messages for the library and its answers back to messages."""

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
from reckg.recommend.deadline import Deadline
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
    """The user of a request.

    Attributes:
        user_id: raw id; None for a request without a user.
        events: recorded events that the bundle does not hold.
        recent: field ``recent_item_ids``.
        attributes: column to values.
        context: distinct item ids of the context.
        no_events: whether there may be recorded events that do not count.
    """

    user_id: str | None
    events: Sequence[StoredEvent]
    recent: Sequence[str]
    attributes: dict[str, list[str | float]]
    context: Sequence[str]
    no_events: bool = False

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments of Recommender's methods."""
        return {
            "recent_items": [*(event.item_id for event in self.events), *self.recent],
            "recent_times": [event.time for event in self.events],
            "recent_types": [event.type for event in self.events],
            "attributes": self.attributes,
            "context_items": self.context,
        }


class RecommenderService(recommender_pb2_grpc.RecommenderServiceServicer):
    """The service that recommends. It answers from the state's current snapshot, and with UNAVAILABLE before the first.

    Args:
        state: the served bundle.
        limits: the section ``limits`` of the settings.
        store: the state store with recorded events; None: no events.
        experiment: compared variants; None: the served bundle answers everybody.
        log: gets the answers of Recommend.
        clock: epoch seconds, for the log.
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
        """Answers one user."""
        deadline = self._start_deadline(context)
        if not request.recent_item_ids and not request.attributes:
            messages.require("user_id", request.user_id)
        request_id = messages.read_request_id(request.request_id)
        response, answer = self._recommend(self.experiment, request, deadline, request_id)
        if self.log is not None:
            self.log.record(_make_served_record(request, response, answer, int(self.clock())))
        return response

    def BatchRecommend(
        self, request: pb.BatchRecommendRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.BatchRecommendResponse]:
        """Answers many users, one after the other, as the client reads."""
        experiment = Experiment(ExperimentSettings(), Fixed(self.state.current))  # one snapshot for the whole stream
        if not request.user_ids:
            raise InvalidRequestError("user_ids must not be empty")
        messages.check_count("user_ids", request.user_ids, messages.MAX_BATCH_USERS)
        request_id = messages.read_request_id(request.request_id)
        single = pb.RecommendRequest(
            max_item_count=request.max_item_count,
            include_seen=request.include_seen,
            exclude_seen=request.exclude_seen,
        )
        for name in ("filter", "diversity"):
            if request.HasField(name):
                getattr(single, name).CopyFrom(getattr(request, name))
        for place, user_id in enumerate(request.user_ids):
            single.user_id = messages.require(f"user_ids[{place}]", user_id)
            response, _ = self._recommend(experiment, single, self._start_deadline(context), request_id)
            yield pb.BatchRecommendResponse(user_id=user_id, recommendations=response)

    def SimilarItems(self, request: pb.SimilarItemsRequest, context: grpc.ServicerContext) -> pb.SimilarItemsResponse:
        """Finds the items closest to one item."""
        served = self.state.current
        item_id = messages.require("item_id", request.item_id)
        k = messages.read_item_count(request.max_item_count, self.limits.max_items)
        filters = messages.read_filters(request)
        found = served.recommender.similar_items(item_id, k, filters=filters)
        return pb.SimilarItemsResponse(
            items=messages.write_scored_items(found.items),
            bundle_version=found.bundle_version,
            catalog_revision=served.catalog_revision,
        )

    def RankItems(self, request: pb.RankItemsRequest, context: grpc.ServicerContext) -> pb.RankItemsResponse:
        """Orders the caller's own candidates."""
        served, deadline = self.state.current, self._start_deadline(context)
        if not request.recent_item_ids and not request.attributes:
            messages.require("user_id", request.user_id)
        item_ids = messages.check_ids("item_ids", request.item_ids, messages.MAX_CANDIDATES)
        request_id = messages.read_request_id(request.request_id)
        user = _parse_user(served, request, self._read_events(request, deadline))
        ranked = served.recommender.rank_items(
            user.user_id, item_ids, **user.arguments(), with_features=request.include_feature_values, deadline=deadline
        )
        return pb.RankItemsResponse(
            items=messages.write_scored_items(ranked.order.items),
            unknown_item_ids=ranked.unknown_items,
            **self._response_fields(ranked.order, served, user, request_id),
        )

    def GetItem(self, request: pb.GetItemRequest, context: grpc.ServicerContext) -> pb.GetItemResponse:
        """Returns one item of the catalogue."""
        served = self.state.current
        item_id = messages.require("item_id", request.item_id)
        bundle = served.recommender.bundle
        idx = bundle.item_ids.idx(item_id)
        row = bundle.row(idx)
        return pb.GetItemResponse(
            item=messages.write_item(row),
            title=(row[bundle.title_column] or "") if bundle.title_column else "",
            available=bool(bundle.available[idx]),
            added=served.is_added(idx),
            bundle_version=served.bundle_version,
            catalog_revision=served.catalog_revision,
        )

    def _recommend(
        self, experiment: Experiment, request: pb.RecommendRequest, deadline: Deadline, request_id: str
    ) -> tuple[pb.RecommendResponse, Answer]:
        k = messages.read_item_count(request.max_item_count, self.limits.max_items)
        filters, diversity = messages.read_filters(request), messages.read_diversity(request)
        recorded = self._read_events(request, deadline)
        users: dict[int, RequestedUser] = {}  # by snapshot: the bundles of two variants hold different events

        def recommend(served: Served, variant: VariantSettings | None, depth: int) -> Recommendations:
            user = users[id(served)] = _parse_user(served, request, recorded)
            of_variant = Diversity(variant.diversity) if variant is not None and variant.diversity else None
            return served.recommender.recommend(
                user.user_id,
                depth,
                messages.read_exclude_seen(request),
                **user.arguments(),
                rerank=variant is None or variant.rerank,
                diversity=diversity or of_variant,
                filters=filters,
                with_features=request.include_feature_values,
                with_sources=request.include_source_scores,
                deadline=deadline,
            )

        try:
            answer = experiment.answer(request.user_id or request_id, k, request_id, recommend)
        except ConfigError as error:
            if diversity is None:
                raise
            raise InvalidRequestError(str(error)) from error
        items = messages.write_scored_items(answer.found.items)
        if answer.variant == INTERLEAVED:
            for item, name in zip(items, answer.variants, strict=True):
                item.variant = name
        fields = self._response_fields(answer.found, answer.served, users[id(answer.served)], request_id)
        return pb.RecommendResponse(items=items, variant=answer.variant, **fields), answer

    def _read_events(self, request: Any, deadline: Deadline) -> Sequence[StoredEvent] | None:
        """Reads the user's recorded events; None if the store does not answer."""
        if not request.user_id or self.store is None:
            return ()
        deadline.begin("events")
        try:
            return self.store.user_events(request.user_id)
        except StoreError:
            return None

    def _response_fields(
        self, found: Recommendations, served: Served, user: RequestedUser, request_id: str
    ) -> dict[str, Any]:
        """Returns a response's fields beside the items, and reports them to the call.

        Args:
            found: the recommendations.
            served: snapshot that gave them.
            user: of the request.
            request_id: of the request.
        """
        reasons: list[DegradedReason | str] = list(found.degraded)
        reasons += ["no_events"] * user.no_events + ["stale_catalog"] * served.stale_catalog
        call = CALL.get(None)
        if call is not None:
            call.report.request_id, call.report.bundle_version = request_id, found.bundle_version
            call.report.degraded += reasons
            is_served = found.bundle_version == self.state.current.bundle_version  # not another bundle of a variant
            if is_served and found.items and found.fallback is None and "no_rerank" not in reasons:
                call.report.best_score = max(item.score for item in found.items)  # explored items are not in order
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

    def _start_deadline(self, context: grpc.ServicerContext) -> Deadline:
        """Starts the clock of a call's deadline and stages."""
        left_s = context.time_remaining()
        deadline = Deadline(
            math.inf if left_s is None else left_s,
            min_rerank_s=self.limits.min_rerank_ms / 1000,
            wanted=context.is_active,
        )
        call = CALL.get(None)
        if call is not None:
            call.report.deadlines.append(deadline)
        return deadline


def _parse_user(served: Served, request: Any, recorded: Sequence[StoredEvent] | None) -> RequestedUser:
    """Reads the user of a request.

    Args:
        served: snapshot that answers.
        request: of Recommend or RankItems.
        recorded: the user's recorded events; None if the store did not answer.
    """
    bundle = served.recommender.bundle
    events = new_events(bundle, request.user_id, recorded) if recorded else []
    events = [event for event in events if event.item_id in bundle.item_ids]
    unused = recorded is None or (bool(events) and bundle.inductive is None)  # events that cannot count
    return RequestedUser(
        request.user_id or None,
        [] if unused else events,
        messages.read_recent_items(request.recent_item_ids),
        messages.read_attributes(request.attributes),
        messages.read_context_items(request.context),
        no_events=unused,
    )


def _make_served_record(
    request: pb.RecommendRequest, response: pb.RecommendResponse, answer: Answer, now: int
) -> ShownAnswer:
    """Makes the served log's record of an answer."""
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
