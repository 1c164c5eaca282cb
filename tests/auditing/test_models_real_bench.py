"""What `make bench-models-real` says of promised and measured quality."""

import pytest

from bench.models_real.run import JudgedModels
from t2i_policy.audits import Audit, BandOf
from t2i_policy.level import Level

NAMES = {"": "full", "light": "light"}


def test_errors_are_told_by_model_and_by_band() -> None:
    """A model's bands may be off in both directions and the model not; few images say nothing."""
    short, plain, light = Level(0, 6), Level(0, 4), Level(0, 4, model="light")
    losses = {short: 0.15, plain: 0.05, light: 0.13}
    audits = [Audit(BandOf(level, -1.0), 1 - lost, 1.0, 0.1, 0.1) for level, lost in losses.items() for _ in range(40)]
    audits += [Audit(BandOf(Level(0, 2, model="light"), -1.0), 0.1, 1.0, 0.1, 0.1)] * 2
    found = JudgedModels.of(audits, NAMES).figures
    assert found["promise_error_points_max"] == pytest.approx(5.0)
    assert found["by_model"]["full"]["measured_percent"] == pytest.approx(90.0)
    assert found["model_error_points_max"] == pytest.approx(100 * (40 * 0.03 + 2 * 0.8) / 42)
    assert {row["level"] for row in found["bands"]} == {"0/6", "0/4", "light:0/4", "light:0/2"}
