from __future__ import annotations

import polars as pl
import pytest

from reckg.config.run_config import EventConfig
from reckg.data.events import EventPlan, plan_events
from reckg.errors import DataError


def log(*rows: tuple[int, int, int, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "event"], orient="row")


# 16 views, 4 of them put into the cart, one of these bought; a user returns it
FUNNEL = log(
    *((user, item, 10 * item, "view") for user in range(4) for item in range(4)),
    *((user, 0, 1, "cart") for user in range(4)),
    (0, 0, 2, "purchase"),
    (0, 0, 3, "return"),
)


def test_the_rarest_type_that_others_lead_to_is_the_target() -> None:
    plan = plan_events(FUNNEL, {})
    assert plan.targets == ("purchase",) and plan.derived
    assert plan.negative == ("return",), "the name says that it takes something back"
    assert plan.weights == {"purchase": 1.0, "cart": 0.5, "view": 0.25}, "square roots of 1/4 and 1/16"
    target, dislikes = plan.notes()
    assert "Target event: purchase (derived" in target and "return (1 training interactions)" in dislikes


def test_without_a_funnel_all_types_are_targets() -> None:
    plan = plan_events(log((0, 0, 1, "read"), (0, 1, 2, "heard"), (1, 0, 1, "heard")), {})
    assert plan.targets == ("read", "heard") and plan.weights == {"read": 1.0, "heard": 1.0}
    assert not plan.funnel and plan.notes() == []


def test_what_comes_before_is_not_led_to() -> None:
    rows = [(user, 0, 1, "signup") for user in range(3)] + [(user, 0, 5, "visit") for user in range(9)]
    assert plan_events(log(*rows), {}).targets == ("signup", "visit")


def test_a_step_on_the_way_is_not_the_target() -> None:
    """Of ten purchases only seven went through the cart, so that carts are rarer."""
    rows = [(user, 0, 10, "view") for user in range(30)]
    rows += [(user, 0, 20, "cart") for user in range(7)] + [(user, 0, 30, "purchase") for user in range(10)]
    plan = plan_events(log(*rows), {})
    assert plan.targets == ("purchase",)
    rows += [(user, item, 40 + item, "play") for user in range(10) for item in range(20)]
    assert plan_events(log(*rows), {}).targets == ("purchase",), "plays follow, but are far more frequent"


def test_settings_come_first() -> None:
    plan = plan_events(FUNNEL, {"cart": EventConfig(target=True), "return": EventConfig(weight=0.5)})
    assert plan.targets == ("cart",) and not plan.derived and plan.negative == ()
    assert plan.weights["return"] == 0.5 and plan.weights["cart"] == 1.0


def test_given_weights_set_the_scale() -> None:
    plan = plan_events(FUNNEL, {"cart": EventConfig(weight=3), "view": EventConfig(weight=1)})
    assert plan.targets == ("purchase",)
    assert plan.weights == {"purchase": 6.0, "cart": 3.0, "view": 1.0}


def test_data_without_types_has_no_plan() -> None:
    assert plan_events(FUNNEL.drop("event"), {}) == EventPlan()
    with pytest.raises(DataError, match="no column 'event'"):
        plan_events(FUNNEL.drop("event"), {"buy": EventConfig(target=True)})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"buy": EventConfig(target=True)}, "buy, which no training interaction has; there are purchase, return, cart"),
        ({name: EventConfig(negative=True) for name in ("view", "cart", "purchase")}, "every event type is negative"),
    ],
)
def test_settings_that_do_not_fit_are_errors(given: dict[str, EventConfig], says: str) -> None:
    with pytest.raises(DataError, match=says):
        plan_events(FUNNEL, given)
