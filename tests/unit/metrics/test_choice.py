from __future__ import annotations

import numpy as np

from reckg.metrics.choice import clearly_best


def test_a_choice_within_the_noise_is_the_usual_one() -> None:
    usual, noise = np.zeros(100), np.tile([1.0, -1.0], 50)
    assert clearly_best({"usual": usual, "other": usual + 0.05 + noise}, "usual") == "usual"
    assert clearly_best({"usual": usual, "other": usual + 0.25 + noise}, "usual") == "other"
    assert clearly_best({"usual": usual, "other": usual - 1}, "usual") == "usual"
    noisy = {"usual": usual, "sure": usual + 0.2, "best": usual + 0.3 + 4 * noise}
    assert clearly_best(noisy, "usual") == "sure", "a noisy winner does not hide one that is sure"
