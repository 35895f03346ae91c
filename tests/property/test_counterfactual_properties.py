"""What holds for every estimate, whatever the log."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reckg.evaluation.logs.counterfactual import effective_sample_size, estimate, importance_weights, top_weight_share
from tests.reference import doubly_robust, ips, snips


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 40), clusters=st.integers(1, 40), seed=st.integers(0, 2**32 - 1), clip=st.floats(0.01, 50))
def test_estimates_keep_their_bounds(n: int, clusters: int, seed: int, clip: float) -> None:
    rng = np.random.default_rng(seed)
    target = rng.random(n) * (rng.random(n) < 0.5)
    propensity, reward = 1 - rng.random(n), rng.normal(size=n)
    shown, wanted = rng.normal(size=n), rng.normal(size=n)
    weight, clipped = importance_weights(target, propensity), importance_weights(target, propensity, clip)
    assert (clipped <= np.minimum(weight, clip)).all() and (clipped[weight <= clip] == weight[weight <= clip]).all()
    counted = weight > 0
    if counted.any():
        assert reward[counted].min() - 1e-9 <= snips(reward, weight) <= reward[counted].max() + 1e-9
        assert 1 - 1e-9 <= effective_sample_size(weight) <= counted.sum() + 1e-9
        assert 1 / n - 1e-9 <= top_weight_share(weight) <= 1 + 1e-9
        assert effective_sample_size(weight * 1e-9) == pytest.approx(effective_sample_size(weight))
    nothing = np.zeros(n)
    assert doubly_robust(reward, weight, nothing, nothing) == pytest.approx(ips(reward, weight))
    assert doubly_robust(reward, nothing, shown, wanted) == pytest.approx(wanted.mean())
    assert ips(reward, np.ones(n)) == pytest.approx(snips(reward, np.ones(n))) == pytest.approx(reward.mean())
    cluster = np.unique(rng.integers(0, clusters, n), return_inverse=True)[1]
    found = estimate(reward, weight, shown, wanted, cluster, 20, seed)
    assert found["ips"]["mean"] == pytest.approx(ips(reward, weight))
    assert found["dr"]["mean"] == pytest.approx(doubly_robust(reward, weight, shown, wanted))
    assert found["mean_weight"]["mean"] == pytest.approx(weight.mean())
    assert found["logged"]["mean"] == pytest.approx(reward.mean())
    if counted.any():
        assert found["snips"]["mean"] == pytest.approx(snips(reward, weight))
        assert found["snips_minus_logged"]["mean"] == pytest.approx(snips(reward, weight) - reward.mean())
