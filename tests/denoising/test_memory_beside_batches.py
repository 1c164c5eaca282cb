"""The batch leaves memory for a decode beside it. The device's memory is played: a row of a forward takes 10 bytes."""

from pathlib import Path

import pytest

from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_worker.engine.warm_up import warm_up
from t2i_worker.pipelines.device_memory import fits_beside


class PlayedMemory:
    def __init__(self, engine: TinyEngine, room: float, decode: float) -> None:
        self.room, self.decode = room, decode
        self.forwards: list[int] = []
        real = engine.pipeline.denoiser.forward

        def forward(arguments, adapters=()):
            output = real(arguments, adapters)
            self.forwards.append(len(arguments["sample"]))
            return output

        engine.pipeline.denoiser.forward = forward

    def begin(self) -> None:
        self.forwards.clear()

    def taken_bytes(self) -> float:
        return 10.0 * max(self.forwards) if self.forwards else self.decode

    def room_bytes(self) -> float:
        return self.room


@pytest.mark.parametrize(("room", "largest"), [(1000.0, 4), (70.0, 2), (30.0, 1)])
def test_largest_batch_leaves_room_for_a_decode(
    room: float, largest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows a request and 20 bytes of a decode; one request alone is served whatever it takes."""
    engine = TinyEngine("sdxl", save_family("sdxl", tmp_path))
    engine.pipeline.memory = PlayedMemory(engine, room, decode=20.0)
    monkeypatch.setattr("t2i_worker.engine.warm_up.MIN_GAIN", 0.0)
    monkeypatch.setattr("t2i_worker.engine.warm_up.choose_batch_cap", max)
    assert warm_up(engine.pipeline, 5.0, 4, lambda _: None).batch_cap == largest


def test_some_of_the_room_is_spared() -> None:
    assert fits_beside(60, 35, 100)
    assert not fits_beside(60, 36, 100)
