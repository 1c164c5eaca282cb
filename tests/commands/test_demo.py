"""The demo's stream of captions and its summary."""

import io

import numpy as np
import pytest
from PIL import Image

from t2i_profiler.images import Sample
from t2i_protos.v1 import gateway_pb2, level_pb2
from t2i_scenes import render
from t2ictl.client import Generated
from t2ictl.commands.demo import demo_samples
from t2ictl.demo_summary import Outcome, by_model, summarise

SAMPLES = demo_samples(60, 1)


def drawn(
    sample: Sample, skipped: int, steps: int, model: str = "", promised: float | None = None, asked: str = ""
) -> Outcome:
    """A served caption whose image is the renderer's own."""
    assert sample.scene is not None
    file = io.BytesIO()
    Image.fromarray(render(sample.scene, np.random.default_rng(1))).save(file, "png")
    level = level_pb2.Level(skipped_steps=skipped, num_inference_steps=steps, model=model)
    decision = gateway_pb2.Decision(expected_quality_percent=promised)
    told = Generated(file.getvalue(), gateway_pb2.Accepted(decision=decision), gateway_pb2.Done(served=level))
    return Outcome(sample, told, 100.0, asked=asked)


def test_captions_repeat_as_users_do() -> None:
    """At least 48 captions; some are the same words again, most resemble an earlier one; the same every time."""
    prompts = [sample.prompt for sample in SAMPLES]
    assert len(prompts) == 60
    assert 40 <= len(set(prompts)) < 60
    assert [sample.prompt for sample in demo_samples(60, 1)] == prompts


def test_summary_counts_what_ran() -> None:
    """Levels by label, hits, failures, saved steps; quality is relative to the exact images."""
    served = [drawn(SAMPLES[0], 0, 16), drawn(SAMPLES[1], 8, 16), drawn(SAMPLES[2], 0, 8)]
    served.append(Outcome(SAMPLES[3], None, 0.0, "UNAVAILABLE: no worker"))
    summary = summarise(served, [drawn(sample, 0, 16) for sample in SAMPLES[:4]], 16)
    assert (summary["requests"], summary["served"], summary["failed"], summary["cache_hits"]) == (4, 3, 1, 1)
    assert summary["levels"] == {"0": 1, "8": 1, "0/8": 1}
    assert summary["steps_saved_percent"] == pytest.approx(33.3)
    assert summary["quality_percent"] == pytest.approx(100, abs=3)
    assert summary["errors"] == {"UNAVAILABLE: no worker": 1}


def test_summary_without_any_image() -> None:
    """All failed: zeros, not a division by zero."""
    failed = [Outcome(SAMPLES[0], None, 0.0, "UNAVAILABLE: no worker")]
    summary = summarise(failed, failed, 16)
    assert (summary["served"], summary["failed"], summary["mean_score"], summary["p95_ms"]) == (0, 1, 0.0, 0.0)


def test_summary_of_several_models() -> None:
    """Each model has its images, what it was promised and what it is worth; one that drew nothing says so. Work of
    another model counts as its steps take beside the pool's own.
    """
    served = [
        drawn(SAMPLES[0], 0, 12),
        drawn(SAMPLES[1], 0, 4, "light", 90.0),
        drawn(SAMPLES[2], 0, 4, "light", 80.0, asked="light"),
        Outcome(SAMPLES[3], None, 0.0, "UNAVAILABLE: no worker", "light"),
    ]
    exact = [drawn(sample, 0, 12) for sample in SAMPLES[:4]]
    found = by_model(served, exact, {"": "full", "light": "light", "idle": "idle"})
    assert (found["full"]["images"], found["full"]["demanded"], found["full"]["promised_percent"]) == (1, 0, None)
    assert (found["light"]["images"], found["light"]["demanded"], found["light"]["promised_percent"]) == (2, 1, 85.0)
    assert found["light"]["quality_percent"] == pytest.approx(100, abs=3)
    assert (found["idle"]["images"], found["idle"]["quality_percent"], found["idle"]["p50_ms"]) == (0, None, None)
    summary = summarise(served, exact, 12, lambda level: level.cost / 2 if level.model else level.cost)
    assert summary["levels"] == {"0": 1, "light:0/4": 2}
    assert summary["steps_saved_percent"] == pytest.approx(100 * (1 - 16 / 36), abs=0.1)
