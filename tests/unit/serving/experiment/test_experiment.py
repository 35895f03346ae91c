"""Which system answers where variants are compared, and what its log is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reckg.recommend.answers import Recommendations
from reckg.recommend.recommender import Recommender
from reckg.v1 import recommender_pb2 as pb
from serving.calls.call import CALL, Call
from serving.catalog.snapshot import Served, ServingState
from serving.experiment.experiment import Experiment
from serving.experiment.variants import variant_of
from serving.services.recommender import RecommenderService
from serving.settings import ExperimentSettings, VariantSettings
from tests.small_bundle import small_bundle

USERS = [f"u{number:03d}" for number in range(39)]


def state(version: str = "test-1", seed: int = 0) -> ServingState:
    serving = ServingState()
    serving.serve(Recommender(small_bundle(version=version, seed=seed)))
    return serving


def ask_for(user: str) -> Any:
    def ask(served: Served, variant: VariantSettings | None, k: int) -> Recommendations:
        return served.recommender.recommend(user, k, rerank=variant is None or variant.rerank)

    return ask


def settings(**given: Any) -> ExperimentSettings:
    variants = [{"name": "ranked", "share": 1}, {"name": "retrieved", "share": 1, "rerank": False}]
    return ExperimentSettings.model_validate({"variants": variants, **given})


def ids(found: Recommendations) -> list[str]:
    return [item.item_id for item in found.items]


def test_without_variants_what_is_served_answers() -> None:
    answer = Experiment(ExperimentSettings(), state()).answer("u001", 5, "r", ask_for("u001"))
    assert answer.variant == "" and set(answer.propensities) == {1.0}
    assert ids(answer.found) == ids(Recommender(small_bundle()).recommend("u001", 5))


def test_a_user_gets_the_variant_that_it_was_dealt() -> None:
    experiment, recommender = Experiment(settings(), state()), Recommender(small_bundle())
    seen = set()
    for user in USERS:
        answer = experiment.answer(user, 5, "r", ask_for(user))
        assert answer.variant == variant_of(settings(), user).name
        assert ids(answer.found) == ids(recommender.recommend(user, 5, rerank=answer.variant == "ranked"))
        seen.add(answer.variant)
    assert seen == {"ranked", "retrieved"}


def test_a_variant_of_another_bundle() -> None:
    variants = [{"name": "now", "share": 1}, {"name": "next", "share": 1, "bundle_version": "test-2"}]
    experiment = Experiment(settings(variants=variants), state(), {"test-2": state("test-2", seed=5)})
    versions = {answer.variant: answer.found.bundle_version for answer in _answers(experiment)}
    assert versions == {"now": "test-1", "next": "test-2"}


def _answers(experiment: Experiment) -> list[Any]:
    return [experiment.answer(user, 5, "r", ask_for(user)) for user in USERS]


def test_an_order_by_chance_is_of_the_best_items() -> None:
    experiment = Experiment(settings(variants=[{"name": "try", "share": 1, "explore": 8}]), state())
    best = ids(Recommender(small_bundle()).recommend("u001", 8))
    answers = [experiment.answer("u001", 5, f"r{number}", ask_for("u001")) for number in range(30)]
    assert all(set(ids(answer.found)) <= set(best) and len(answer.found.items) == 5 for answer in answers)
    assert {ids(answer.found)[0] for answer in answers} > {best[0]}
    assert answers[0].propensities == [1 / 8] * 5
    assert ids(experiment.answer("u001", 5, "r0", ask_for("u001")).found) == ids(answers[0].found)


def test_a_team_draft_of_two_variants() -> None:
    experiment = Experiment(settings(interleave=True), state())
    recommender = Recommender(small_bundle())
    a, b = (ids(recommender.recommend("u001", 10, rerank=rerank)) for rerank in (True, False))
    answer = experiment.answer("u001", 10, "r", ask_for("u001"))
    assert answer.variant == "interleaved" and len(set(ids(answer.found))) == 10
    assert {ids(answer.found)[0]} <= {a[0], b[0]}
    for item, name in zip(ids(answer.found), answer.variants, strict=True):
        assert item in (a if name == "ranked" else b)
    assert all(0 < propensity <= 1 for propensity in answer.propensities)


def test_what_is_said_beside_the_items_stays() -> None:
    experiment = Experiment(settings(interleave=True), state())
    answer = experiment.answer("", 4, "r", lambda served, variant, k: _cold(served, k))
    assert answer.found.fallback == "popular" and "cold_user" in answer.found.degraded


def _cold(served: Served, k: int) -> Recommendations:
    return replace(served.recommender.recommend("nobody", k), unknown_attributes=("x",))


def test_a_bundle_that_is_not_there_yet_is_no_answer() -> None:
    from serving.errors import StartingError

    with pytest.raises(StartingError):
        Experiment(ExperimentSettings(), ServingState()).answer("u", 5, "r", ask_for("u"))


class Context:
    """Of a call without a deadline."""

    def time_remaining(self) -> None: ...

    def is_active(self) -> bool:
        return True


def test_the_best_score_is_told_of_what_is_served_alone_whatever_the_order() -> None:
    """The drift of scores is measured from it: a variant's other bundle has other scores."""
    variants = [{"name": "now", "share": 1, "explore": 20}, {"name": "next", "share": 1, "bundle_version": "test-2"}]
    now, other = state(), {"test-2": state("test-2", seed=5)}
    service = RecommenderService(now, experiment=Experiment(settings(variants=variants), now, other))
    orders = set()
    for user in USERS:
        call = Call("/reckg.v1.RecommenderService/Recommend", 0.0)
        token = CALL.set(call)
        answer = service.Recommend(pb.RecommendRequest(user_id=user, max_item_count=20), Context())
        CALL.reset(token)
        scores = [item.score for item in answer.items]
        orders.add(scores[0] == max(scores))
        assert call.report.best_score == (None if answer.variant == "next" else pytest.approx(max(scores)))
    assert orders == {True, False}
