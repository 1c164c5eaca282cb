"""`t2ictl simulate` and `t2ictl plan`: rows for machines, tables for people, and mistakes named where they are."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from t2ictl.commands.plan import PlanOptions, run_plan
from t2ictl.commands.simulate import SimulateOptions, run_simulate
from t2ictl.errors import InputInvalid

EXAMPLES = Path(__file__).parents[2] / "examples"
SCENES_PROMPTS = "a red circle\na blue square\na red circle on a blue background\n"


@pytest.fixture
def options(tmp_path: Path) -> SimulateOptions:
    """Forty requests in forty seconds on the SDXL example."""
    arrivals = tmp_path / "arrivals.txt"
    arrivals.write_text("".join(f"{1000 * second}\n" for second in range(40)))
    return SimulateOptions(
        pool_file=EXAMPLES / "pool-sdxl-8.yaml",
        arrivals=arrivals,
        prompts=None,
        policies="prompt-aware",
        workers=None,
        speedup=1.0,
        profile=None,
        embedder=None,
        fresh_cycles=False,
        faults=(),
        sizes=(),
        models=(),
        reload_s=None,
        seed=1,
        json_out=tmp_path / "out" / "rows.json",
        plot_out=tmp_path / "out" / "course.png",
    )


def test_rows_and_plot_are_written(options: SimulateOptions) -> None:
    """One row a policy with the promised fields, equal on the second run; the picture is one."""
    console = Console(record=True, width=100)
    assert options.json_out is not None
    assert options.plot_out is not None
    run_simulate(console, options)
    text = options.json_out.read_text()
    (row,) = json.loads(text)
    assert (row["trace"], row["policy"], row["offered"], row["workers"]) == ("arrivals", "prompt-aware", 40, 8)
    assert {"served", "violation_percent", "shed_percent", "quality_percent", "p99_s", "mean_skipped_steps"} <= set(row)
    assert row["quality_gap"] is None
    assert options.plot_out.read_bytes().startswith(b"\x89PNG")
    assert "prompt-aware" in console.export_text()
    run_simulate(console, options)
    assert options.json_out.read_text() == text


def test_real_embeddings_of_the_builtin_model(
    options: SimulateOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scenes pool brings profile and embedder; cycled captions are found again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(SCENES_PROMPTS)
    run_simulate(Console(quiet=True), replace(options, pool_file=EXAMPLES / "pool-scenes.yaml", prompts=prompts))
    assert options.json_out is not None
    assert json.loads(options.json_out.read_text())[0]["served"] == 40


FIXED_MIX = "  mix: {mode: Fixed, workers: [{skippedSteps: 25, workers: 8}]}\n"


def test_pool_with_a_fixed_mix_is_simulated_with_it(options: SimulateOptions, tmp_path: Path) -> None:
    """As its gateways would serve, and it is said."""
    pool = tmp_path / "pool.yaml"
    pool.write_text((EXAMPLES / "pool-sdxl-8.yaml").read_text() + FIXED_MIX)
    assert options.json_out is not None
    console = Console(record=True, width=100)
    run_simulate(console, replace(options, pool_file=pool, policies="prompt-aware"))
    (fixed,) = json.loads(options.json_out.read_text())
    assert "the pool's mix is Fixed: prompt-aware keeps to it" in console.export_text()
    run_simulate(console, replace(options, policies="prompt-aware"))
    (auto,) = json.loads(options.json_out.read_text())
    assert fixed["policy"] == auto["policy"] == "prompt-aware"
    assert fixed["mean_skipped_steps"] > 20 > auto["mean_skipped_steps"]  # at this load nothing needs to bend


TWO_GROUPS = (
    '- {name: gpu, workers: 8, profile: "builtin://sdxl-a10g"}',
    '- {name: gpu, workers: 6, profile: "builtin://sdxl-turbo-a10g"}\n'
    '  - {name: small, workers: 2, profile: "builtin://sdxl-turbo-a10g"}',
)


HELD_BY_SMALL = (
    TWO_GROUPS[0],
    TWO_GROUPS[1][:-1] + ', model: {name: turbo, source: "hf://stabilityai/sdxl-turbo", numInferenceSteps: 4}}',
)


MISTAKES = {
    "an arrivals file": ({"arrivals": "0\nsoon\n"}, "arrivals.txt, line 2"),
    "a policy's name": ({"policies": "prompt-aware,best"}, "no policy is named 'best'; there are prompt-aware"),
    "a fault's form": ({"faults": ("gpu-1 dies",)}, "expected WORKER@FROM-UNTIL"),
    "a fault's worker": ({"faults": ("gpu-8@1-2",)}, "no worker 'gpu-8'"),
    "a fault's times": ({"faults": ("gpu-1@5-2",)}, "must end after it begins"),
    "a size's form": ({"sizes": ("1024=0.5",)}, "expected WIDTHxHEIGHT=SHARE"),
    "a size that the pool does not serve": ({"sizes": ("512x512=0.5",)}, "the pool makes images of 1024x1024"),
    "more than all requests": ({"sizes": ("1024x1024=0.7", "1024x1024=0.7")}, "must not be more than 1"),
    "a profile of another schedule": (
        {"pool_file": "scenes with sdxl"},
        "workerGroups 'cpu': sdxl-a10g.json: the pool's own model was measured at 50 steps",
    ),
    "a profile of another guidance": (
        {"pool_file": "scenes with more guidance"},
        "workerGroups 'cpu': profile.json: the pool's own model was measured at guidance scale 2, its "
        "guidanceScalePercent in model is 300",
    ),
    "a builtin profile's name": (
        {"pool_file": "unknown profile"},
        "no builtin profile 'sdxl-b200'; there is sdxl-a100",
    ),
    "a model's form": ({"models": ("turbo",)}, "expected GROUP=MODEL"),
    "a model's group": ({"models": ("small=turbo",)}, "no group 'small'; there is gpu"),
    "no group of the pool's model": ({"models": ("gpu=turbo",)}, "--model: no group would hold spec.model"),
    "a model that was not measured": (
        {"pool_file": "two groups, not measured", "models": ("gpu=turbo",)},
        "sdxl-a10g.json: models: no section for 'turbo'",
    ),
    "a group's model that was not measured": (
        {"pool_file": "held by small, not measured"},
        "workerGroups 'gpu': sdxl-a10g.json: models: no section for 'turbo'",
    ),
    "a group's model of another schedule": (
        {"pool_file": "held by small, of 8 steps"},
        "'turbo' was measured at 4 steps, its numInferenceSteps in workerGroups is 8",
    ),
    "a model in a fixed mix": ({"pool_file": "fixed mix", "models": ("gpu=turbo",)}, "--model: mix.mode Fixed"),
    "a policy that knows one model": (
        {"pool_file": "two groups", "models": ("small=turbo",), "policies": "paper"},
        "'paper' is for pools of one model; with --model there are prompt-aware",
    ),
    "moves in a pool of one model": ({"reload_s": 40.0}, "--reload: all workers hold one model"),
    "another number of workers for a fixed mix": (
        {"pool_file": "fixed mix", "workers": 4},
        "--workers: mix.mode Fixed",
    ),
    "no profile at all": ({"pool_file": "no profile"}, "set profile: builtin://NAME"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_their_place(options: SimulateOptions, tmp_path: Path, mistake: str) -> None:
    """Before anything is simulated."""
    changes, message = MISTAKES[mistake]
    sdxl = (EXAMPLES / "pool-sdxl-8.yaml").read_text()
    scenes = (EXAMPLES / "pool-scenes.yaml").read_text()
    pools = {
        "scenes with sdxl": scenes.replace("workers: 2}", 'workers: 2, profile: "builtin://sdxl-a10g"}'),
        "scenes with more guidance": scenes.replace("guidanceScalePercent: 200", "guidanceScalePercent: 300"),
        "unknown profile": sdxl.replace("builtin://sdxl-a10g", "builtin://sdxl-b200"),
        "fixed mix": sdxl + FIXED_MIX,
        "two groups": sdxl.replace(*TWO_GROUPS),
        "two groups, not measured": sdxl.replace(*TWO_GROUPS).replace("sdxl-turbo-a10g", "sdxl-a10g"),
        "held by small, not measured": sdxl.replace(*HELD_BY_SMALL).replace("sdxl-turbo-a10g", "sdxl-a10g"),
        "held by small, of 8 steps": sdxl.replace(*HELD_BY_SMALL).replace(
            "numInferenceSteps: 4", "numInferenceSteps: 8"
        ),
        "no profile": sdxl.replace(', profile: "builtin://sdxl-a10g"', ""),
    }
    made = dict(changes)
    for field, text in (("arrivals", made.get("arrivals")), ("pool_file", pools.get(str(made.get("pool_file"))))):
        if text is not None:
            made[field] = tmp_path / f"{field}.txt"
            made[field].write_text(text)
    with pytest.raises(InputInvalid, match=message):
        run_simulate(Console(quiet=True), replace(options, **made))


def test_plan_shows_capacity_and_shift_map() -> None:
    """Eight A10G workers make 188.6 exact images a minute, the published figure; twice that bends what can bend."""
    console = Console(record=True, width=100)
    run_plan(console, PlanOptions(EXAMPLES / "pool-sdxl-8.yaml", 4.0, "", None, None))
    text = console.export_text()
    assert "188.6 a minute" in text
    assert "0.000 of 4.000 images/s shed" in text
    run_plan(console, PlanOptions(EXAMPLES / "pool-sdxl-8.yaml", None, "0.95=20", 4, None))
    assert "of 20.000 images/s shed" in console.export_text()


def test_plan_tells_measured_from_counted_costs(tmp_path: Path) -> None:
    """A level's time and its steps differ, and both are told."""
    console, pool = Console(record=True, width=160), tmp_path / "pool.yaml"
    document = yaml.safe_load((EXAMPLES / "pool-scenes.yaml").read_text())
    del document["spec"]["levels"]  # so that those of the profile are judged
    pool.write_text(yaml.safe_dump(document))
    run_plan(console, PlanOptions(pool, 4.0, "", None, None))
    text = console.export_text()
    assert "cost, measured" in text
    assert "cost, counted" in text


def test_plan_names_an_unknown_class() -> None:
    """And those there are."""
    with pytest.raises(InputInvalid, match=r"no class '0\.5'; there are -1\.00, 0\.65"):
        run_plan(Console(quiet=True), PlanOptions(EXAMPLES / "pool-sdxl-8.yaml", None, "0.5=1", None, None))


def sdxl_pool(tmp_path: Path, old: str, new: str, more: str = "") -> Path:
    """The SDXL example with one thing in it otherwise."""
    text = (EXAMPLES / "pool-sdxl-8.yaml").read_text()
    assert old in text
    path = tmp_path / "pool.yaml"
    path.write_text(text.replace(old, new) + more)
    return path


def test_what_if_a_group_held_another_model(options: SimulateOptions, tmp_path: Path) -> None:
    """Ten requests a second are more than the six SDXL workers carry: with the others' model nobody is refused."""
    options.arrivals.write_text("".join(f"{100 * number}\n" for number in range(400)))
    pool, rows = sdxl_pool(tmp_path, *TWO_GROUPS), []
    for models in ((), ("small=turbo",)):
        run_simulate(Console(quiet=True), replace(options, pool_file=pool, models=models))
        assert options.json_out is not None
        rows += json.loads(options.json_out.read_text())
    one, several = rows
    assert several["served"] == 400 > one["served"]
    assert any(name.startswith("turbo:") for name in several["served_levels"])
    console = Console(record=True, width=140)
    run_plan(console, PlanOptions(pool, 5.0, "", None, None, ("small=turbo",)))
    text = console.export_text()
    assert "turbo:0/4" in text
    assert "0.000 of 5.000 images/s shed" in text


def test_models_of_the_pools_groups_are_planned_and_simulated(options: SimulateOptions, tmp_path: Path) -> None:
    """As the pool says, without being told again."""
    options.arrivals.write_text("".join(f"{100 * number}\n" for number in range(400)))
    said = sdxl_pool(tmp_path, *HELD_BY_SMALL)
    run_simulate(Console(quiet=True), replace(options, pool_file=said))
    assert options.json_out is not None
    rows = json.loads(options.json_out.read_text())
    run_simulate(
        Console(quiet=True), replace(options, pool_file=sdxl_pool(tmp_path, *TWO_GROUPS), models=("small=turbo",))
    )
    assert rows == json.loads(options.json_out.read_text())
    console = Console(record=True, width=140)
    run_plan(console, PlanOptions(sdxl_pool(tmp_path, *HELD_BY_SMALL), 5.0, "", None, None))
    assert "turbo:0/4" in console.export_text()


def test_what_if_workers_moved_between_models(options: SimulateOptions, tmp_path: Path) -> None:
    """Three minutes of a load that seven SDXL workers carry: one leaves the other model, and the table says so."""
    options.arrivals.write_text("".join(f"{350 * number}\n" for number in range(500)))
    pool = sdxl_pool(tmp_path, *TWO_GROUPS)
    console = Console(record=True, width=140)
    moving = replace(options, pool_file=pool, models=("small=turbo",), reload_s=20.0)
    run_simulate(console, moving)
    assert options.json_out is not None
    (row,) = json.loads(options.json_out.read_text())
    assert row["served"] == 500
    assert f"loaded with another model: prompt-aware {row['reloads']}" in console.export_text()
    assert row["reloads"] > 0


def test_simulation_has_the_gateways_of_the_pool(options: SimulateOptions, tmp_path: Path) -> None:
    """A request in one gateway's queue is told to the others late, so an overloaded pool of four fares otherwise."""
    options.arrivals.write_text("".join(f"{50 * number}\n" for number in range(400)))
    rows = []
    for replicas in (1, 4):
        pool = sdxl_pool(tmp_path, "replicas: 1", f"replicas: {replicas}")
        console = Console(record=True, width=100)
        run_simulate(console, replace(options, pool_file=pool, plot_out=None))
        assert ("gateways, as gateway.replicas says" in console.export_text()) == (replicas > 1)
        assert options.json_out is not None
        rows += json.loads(options.json_out.read_text())
    one, four = rows
    assert one["offered"] == four["offered"]
    assert one != four


def test_plan_keeps_to_a_fixed_mix(tmp_path: Path) -> None:
    """Workers stand as the mix says, also where demand would not ask for it; it places every worker of the file."""
    pool = sdxl_pool(tmp_path, "", "", FIXED_MIX)
    console = Console(record=True, width=100)
    run_plan(console, PlanOptions(pool, 1.0, "", None, None))
    assert re.findall(r"│ gpu +│ (\d+) +│ \d+ +│ (\d+)", console.export_text()) == [("25", "8")]
    with pytest.raises(InputInvalid, match=r"--workers: mix\.mode Fixed"):
        run_plan(console, PlanOptions(pool, 1.0, "", 4, None))


def test_plan_says_what_latency_the_quickest_level_needs(tmp_path: Path) -> None:
    """A table of zeros would say nothing. With what is named the quickest level is served, and its capacity told."""
    pool = sdxl_pool(tmp_path, "20000", "1000")
    with pytest.raises(InputInvalid, match="no level fits into 1000 ms") as failed:
        run_plan(Console(quiet=True), PlanOptions(pool, 1.0, "", None, None))
    found = re.search(r"needs (\d+);", str(failed.value))
    assert found is not None
    pool = sdxl_pool(tmp_path, "20000", found[1])
    console = Console(record=True, width=120)
    run_plan(console, PlanOptions(pool, 1.0, "", None, None))
    text = console.export_text()
    assert "no exact image fits into slo.latencyMilliseconds" in " ".join(text.split())
    assert "100.0%" not in text.split("1.00x")[1].split("1.25x")[0]


TWO_MODELS = (EXAMPLES / "pool-two-models.yaml").read_text()


def planned(tmp_path: Path, pool: str, workers: int | None = None) -> str:
    """What `t2ictl plan` prints for this pool, in one line."""
    path = tmp_path / "pool.yaml"
    path.write_text(pool)
    console = Console(record=True, width=200)
    run_plan(console, PlanOptions(path, 1.0, "", workers, None))
    return " ".join(console.export_text().split())


def test_plan_names_models_that_the_floor_leaves_idle(tmp_path: Path) -> None:
    """Their workers cost and serve nobody, which no table shows."""
    strict = TWO_MODELS.replace("minQualityPercent: 70", "minQualityPercent: 99")
    said = planned(tmp_path, strict)
    assert "No request may be served by model distilled: it is promised " in said
    assert "slo.minQualityPercent is 99" in said
    enough = planned(tmp_path, TWO_MODELS)
    assert "may be served by" not in enough
    assert "AllServed (the best plan): expected quality" in enough
    with pytest.raises(InputInvalid, match="--workers: none would hold a model that"):
        planned(
            tmp_path,
            strict.replace("- name: small\n    workers: 1", "- name: small\n    workers: 9"),
            workers=1,
        )


def test_capacity_is_that_of_levels_within_the_floor(tmp_path: Path) -> None:
    """Where no exact image fits: a load of it would else be shed though it is called what the pool can carry."""
    said = planned(tmp_path, TWO_MODELS.replace("latencyMilliseconds: 1500", "latencyMilliseconds: 60"))
    found = re.search(r"images/s \([0-9.]+ a minute\) at (\S+); no exact image fits", said)
    assert found is not None, said
    assert found[1] != "distilled:0/1"
    full = re.search(r"1\.00x │ [0-9.]+ │ [0-9.]+ │ [0-9.]+% │ ([0-9.]+)%", said)
    assert full is not None, said
    assert float(full[1]) < 1
