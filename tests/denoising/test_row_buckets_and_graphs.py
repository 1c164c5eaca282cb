"""Batches are padded to few numbers of rows and replayed; nobody's rows change by that. Capture is played here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree

from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest
from t2i_worker.engine.meeting import SignatureReader, merge_calls
from t2i_worker.engine.row_buckets import bucket_of, buckets_up_to, fill_bucket, last_row
from t2i_worker.engine.speedups import capture_graphs
from t2i_worker.pipelines import LoadedPipeline
from t2i_worker.pipelines.cuda_graphs import GraphedForward

REQUESTS = [TinyRequest(seed=1), TinyRequest("two green squares", seed=2), TinyRequest(seed=3, guidance=1.0)]
OF_STD = 1e-4  # what another batch size may change by rounding, as docs/models.md promises for batches


@dataclass
class PlayedReplay:
    """Like a CUDA graph: it reads its own tensors only, and writes its output to the same place each time."""

    forward: Callable[[Mapping[str, Any]], Any]
    inputs: list[Any]
    spec: Any
    output: Any
    runs: int = 0

    def run(self) -> None:
        self.runs += 1
        fresh = pytree.tree_leaves(self.forward(pytree.tree_unflatten(self.inputs, self.spec)))
        for mine, value in zip(pytree.tree_leaves(self.output), fresh, strict=True):
            mine.copy_(value)


class PlayedCapture:
    def __init__(self) -> None:
        self.made: list[PlayedReplay] = []

    def __call__(self, forward: Callable[[Mapping[str, Any]], Any], arguments: Mapping[str, Any]) -> PlayedReplay:
        leaves, spec = pytree.tree_flatten(dict(arguments))
        inputs = [one.clone() if isinstance(one, Tensor) else one for one in leaves]
        replay = PlayedReplay(forward, inputs, spec, pytree.tree_map_only(Tensor, torch.clone, forward(arguments)))
        self.made.append(replay)
        return replay


@given(st.integers(1, 500))
def test_buckets_are_few_and_hardly_larger_than_asked(rows: int) -> None:
    """Compute grows with the rows, so padding to powers of two would cost up to twice the time."""
    bucket = bucket_of(rows)
    assert rows <= bucket <= max(rows, 1.25 * rows)
    assert bucket_of(bucket) == bucket
    assert next(iter(buckets_up_to(rows))) == bucket


def test_buckets_come_largest_first() -> None:
    assert list(buckets_up_to(15)) == [16, 14, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1]


def test_filler_is_one_row_of_the_same_signature() -> None:
    """Rows, numbers, dictionaries and lists of tensors; what all rows share stays whole."""
    shared = torch.arange(12).view(4, 3)
    arguments = {
        "x": torch.arange(6).view(2, 3),
        "t": torch.tensor(3),
        "pos": torch.zeros(2, 3),
        "ids": shared,
        "added": {"text": torch.ones(2, 5)},
        "parts": [torch.zeros(4), torch.ones(4)],
    }
    call = SignatureReader(("pos",)).read(arguments)
    filler = last_row(call, ("pos",))
    assert SignatureReader(("pos",)).read(filler.arguments).signature == call.signature
    assert filler.rows == 1
    assert filler.arguments["x"].tolist() == [[3, 4, 5]]
    assert filler.arguments["pos"].shape == (2, 3)
    calls = fill_bucket([call] * 4 + [filler], ("pos",))
    merged = merge_calls(calls, ("pos",))
    assert sum(one.rows for one in calls) == 10
    assert merged["x"].shape == (10, 3)
    assert len(merged["parts"]) == 10
    assert merged["added"]["text"].shape == (10, 5)
    assert torch.equal(merged["ids"], shared)


@pytest.fixture(scope="module", params=["sdxl", "sd3", "flux-dev", "z-image"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyEngine:
    return TinyEngine(request.param, save_family(request.param, tmp_path_factory.mktemp(request.param)))


def record_calls(pipeline: LoadedPipeline, engine: TinyEngine) -> list[Any]:
    """The calls of one step, as the warm-up records them."""
    reader, found = SignatureReader(pipeline.denoiser.shared), []
    real = pipeline.denoiser.forward

    def noting(arguments: Mapping[str, Any], adapters: Any = ()) -> Any:
        found.append(reader.read(arguments))
        return real(arguments, adapters)

    pipeline.denoiser.forward = noting  # type: ignore[method-assign]
    engine.draw(REQUESTS[:1])
    del pipeline.denoiser.forward
    return found[-1:]


def test_replays_draw_what_the_plain_model_draws(engine: TinyEngine) -> None:
    """Alone exactly, in padded batches up to rounding; and graphs did run."""
    plain_alone = [engine.draw([one])[0].final for one in REQUESTS]
    plain = [run.final for run in engine.draw(REQUESTS)]
    capture = PlayedCapture()
    with torch.inference_mode():
        calls = record_calls(engine.pipeline, engine)
        assert capture_graphs(engine.pipeline, calls, 4, capture) == len(capture.made) > 0
    alone = [engine.draw([one])[0].final for one in REQUESTS]
    together = [run.final for run in engine.draw(REQUESTS)]
    assert sum(replay.runs for replay in capture.made) > 0
    engine.pipeline.denoiser.graphs = None
    for one, wanted in zip(alone, plain_alone, strict=True):
        assert torch.equal(one, wanted)
    for one, wanted in zip(together, plain, strict=True):
        assert float((one - wanted).abs().max()) <= OF_STD * float(wanted.std())


def test_argument_that_no_graph_knows_runs_as_before() -> None:
    """Another shape, type or number: a graph of something else would be a wrong image."""
    forwards = []

    def forward(arguments: Mapping[str, Any]) -> Tensor:
        forwards.append(arguments["x"].shape)
        return arguments["x"] * arguments["scale"]

    graphs = GraphedForward(forward, PlayedCapture())
    graphs.capture({"x": torch.ones(2), "scale": 3})
    held = graphs({"x": torch.tensor([1.0, 2.0]), "scale": 3})
    assert graphs({"x": torch.tensor([5.0, 6.0]), "scale": 3}).tolist() == [15, 18]
    assert held.tolist() == [3, 6], "a replay must not write into an output that was given away"
    assert graphs({"x": torch.ones(3), "scale": 3}).tolist() == [3, 3, 3]
    assert graphs({"x": torch.ones(2), "scale": 4}).tolist() == [4, 4]
    assert len(graphs) == 1


@pytest.mark.parametrize(("text", "kept"), [("CUDA out of memory", True), ("operation not permitted", False)])
def test_capture_that_fails_leaves_the_plain_model(text: str, kept: bool, load: Callable[..., LoadedPipeline]) -> None:
    """Graphs that fit stay; a model that cannot be captured runs without any."""
    pipeline, made = load("sdxl"), []

    def capture(forward: Any, arguments: Mapping[str, Any]) -> PlayedReplay:
        made.append(PlayedCapture()(forward, arguments))
        if len(made) == 2:
            raise RuntimeError(text)
        return made[-1]

    arguments = {
        "sample": torch.zeros(2, 4, 16, 24),
        "timestep": torch.tensor(1),
        "encoder_hidden_states": torch.zeros(2, 40, 64),
        "added_cond_kwargs": {"text_embeds": torch.zeros(2, 32), "time_ids": torch.zeros(2, 6)},
    }
    call = SignatureReader(()).read(arguments)
    with torch.inference_mode():
        assert (capture_graphs(pipeline, [call], 2, capture) > 0) is kept
        assert pipeline.denoiser.forward(arguments).sample.shape == (2, 4, 16, 24)
