"""`make bench-probe` compares deciders fairly: runs that it forks are the ways they are named after, nobody spends more
steps than told, and no probe has seen the image that it is judged by."""

import numpy as np
import pytest
import torch

from bench.levels.ways import ALL_WAYS, draw_final
from bench.probe.decided import at_mean_steps, by_chance, by_predictions, with_second_thoughts
from bench.probe.drawn import BatchToDraw
from bench.probe.fitted import area_under_curve, explained, held_out
from t2i_scenes.measuring import AskedCaption
from t2i_scenes.sampling import ScenesModel
from t2i_scenes.scene import Scene, Thing


@pytest.mark.timeout(900)
def test_forked_runs_are_the_ways_they_are_named_after() -> None:
    """An ending that goes on from a look is the same as a run that nobody looked at."""
    scene = Scene((Thing("circle", "red", "large"),), "center", "blue", "plain")
    asked = [AskedCaption(scene, "a large red circle in the center on a plain blue background", 3)]
    model = ScenesModel.load()
    stored = draw_final(
        model, [AskedCaption(scene, "a big red disc in the middle over a flat blue wall", 4)], ALL_WAYS["exact"]
    )
    finals, looks = BatchToDraw.of(model, asked, stored).draw()
    for name in ("exact", "forecast 2", "forecast 3", "steps 0, 1, 4, 8", "6 steps", "4 steps", "skip 6", "skip 9"):
        start = model.noised(stored, ALL_WAYS[name].skipped, [3]) if ALL_WAYS[name].skipped else None
        alone = draw_final(model, asked, ALL_WAYS[name], start)
        torch.testing.assert_close(
            finals[name], alone, atol=2e-4, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert [len(look.seen) for look in looks.values()] == [2, 3, 2, 2, 2, 1]


def test_steps_go_where_they_are_predicted_to_help() -> None:
    """At the mean of steps that is allowed, and at no more."""
    predicted = np.array([[0.9, 0.0], [0.2, 0.1], [0.8, 0.0], [0.1, 0.1]])
    decided = at_mean_steps(by_predictions(predicted, {0: 4, 1: 8}), 6)
    assert decided.places.tolist() == [1, 0, 1, 0]
    assert decided.steps.mean() == 6
    alike = at_mean_steps(by_predictions(np.array([[1.0, 0.0]] * 4), {0: 4, 1: 8}), 7)
    assert alike.places.tolist() == [1, 1, 1, 0]
    with pytest.raises(ValueError, match=r"the cheapest endings cost 4\.0 steps, more than 3"):
        at_mean_steps(by_predictions(predicted, {0: 4, 1: 8}), 3)


def test_only_runs_that_began_are_looked_at() -> None:
    """Whom the first rule begins exactly does not lose the steps before a look."""
    first = by_predictions(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), {0: 3, 1: 12})
    second = by_predictions(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]), {0: 3, 1: 13})
    decided = with_second_thoughts(first, 0, second)(0.01)
    assert decided.steps.tolist() == [13, 12, 3]


def test_chance_is_the_best_mix_without_a_look() -> None:
    bad = np.array([[1.0, 0.5, 0.0], [1.0, 0.7, 0.0]])
    assert by_chance(bad, [4, 6, 8], 6).tolist() == [0.5, 0.5]  # half of them 4, half 8: better than 6 for all
    assert by_chance(bad, [4, 6, 8], 4).tolist() == [1.0, 1.0]


def test_probes_are_judged_by_images_they_never_saw() -> None:
    """Noise is not foreseen, though each fold could be learned by heart; a feature that tells is found, bent or not."""
    rng = np.random.default_rng(3)
    told, noise, folds = rng.normal(size=(240, 3)), rng.normal(size=(240, 400)), np.arange(240) // 40
    targets = np.column_stack([told[:, 0], np.sin(2 * told[:, 1]), rng.normal(size=240)])
    found = held_out([told], targets, folds)
    assert explained(targets[:, 0], found[:, 0]) > 0.9
    assert explained(targets[:, 1], found[:, 1]) > 0.6
    assert abs(explained(targets[:, 2], held_out([noise], targets[:, 2:], folds)[:, 0])) < 0.1
    assert area_under_curve((targets[:, 0] > 0).astype(float), found[:, 0]) > 0.95
    assert area_under_curve(np.array([1.0, 0.0]), np.array([0.3, 0.3])) == 0.5
