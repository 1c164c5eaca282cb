"""No line that a process writes carries a prompt, whatever its libraries log; who sent it is told where it was cut.

A real worker process with a real (tiny) CLIP, whose pipeline logs the end of every prompt that is too long.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from t2i_protos.v1 import level_pb2, worker_pb2, worker_pb2_grpc
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2ictl.processes import ServerProcess

pytestmark = [pytest.mark.process]
WIDTH, HEIGHT = 48, 32
KEPT = 38  # of the tiny CLIP's 40 tokens two are special
POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {{name: test}}
spec:
  model: {{source: "{source}", numInferenceSteps: 2, guidanceScalePercent: 300, width: {width}, height: {height},
          precision: fp32}}
  levels: [{{skippedSteps: 0}}]
  workerGroups: [{{name: cpu, workers: 1}}]
"""
# one token a character: each word begins with the same letters, so that none is found in a log by chance
WORDS = [f"zq{letter}xv" for letter in "abcdefghijklmnop"]
LONG = " ".join(WORDS)
AVOIDED = " ".join(f"yw{letter}kj" for letter in "abcdefghijklmnop")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny StableDiffusionPipeline."""
    return save_family("sd21", tmp_path_factory.mktemp("model"))


@asynccontextmanager
async def worker_of(model: Path, folder: Path) -> AsyncIterator[ServerProcess]:
    pool = folder / "pool.yaml"
    pool.write_text(POOL.format(source=model.as_uri(), width=WIDTH, height=HEIGHT))
    arguments = ["--pool", str(pool), "--group", "cpu", "--name", "w", "--threads", "1", "--max-batch", "1"]
    worker = ServerProcess("worker", "t2i_worker", [*arguments, "--device", "cpu"], folder)
    await worker.start()
    try:
        await worker.wait_ready(300)
        yield worker
    finally:
        await worker.stop(30)


async def started(worker: ServerProcess, prompt: str, negative: str = "") -> worker_pb2.Started:
    """What the worker says when it begins; the request is seen through."""
    request = worker_pb2.WorkerGenerateRequest(
        request_id="r",
        prompt=prompt,
        negative_prompt=negative,
        width=WIDTH,
        height=HEIGHT,
        guidance_scale=3.0,
        output_format=level_pb2.OUTPUT_FORMAT_PNG,
        level=level_pb2.Level(num_inference_steps=2),
    )
    async with grpc.aio.insecure_channel(worker.address) as channel:
        events = [event async for event in worker_pb2_grpc.WorkerStub(channel).Generate(request, timeout=120)]
    return next(event.started for event in events if event.HasField("started"))


def told_words(log: str) -> set[str]:
    """Words of the prompts, or beginnings and ends of them, that the process wrote."""
    return {word for word in (*LONG.split(), *AVOIDED.split()) if word in log or word[:3] in log or word[2:] in log}


async def test_cut_prompt_is_told_to_the_caller_and_in_no_log(folder: Path, tmp_path: Path) -> None:
    """Stdout and stderr of the whole life of the process; both texts are cut, each at its own place."""
    async with worker_of(folder, tmp_path) as worker:
        cuts = (await started(worker, LONG, AVOIDED)).prompt_cuts
        assert list((await started(worker, WORDS[0])).prompt_cuts) == []
    log = worker.log_path.read_text()
    assert "worker w serves" in log
    assert told_words(log) == set()
    assert [(cut.encoder, cut.kept_tokens, cut.negative) for cut in cuts] == [
        ("text_encoder", KEPT, False),
        ("text_encoder", KEPT, True),
    ]
    for cut, text in zip(cuts, (LONG, AVOIDED), strict=True):
        assert cut.total_tokens == len(text.replace(" ", ""))
        assert len(text[: cut.kept_characters].replace(" ", "")) == KEPT


async def test_prompt_that_cannot_be_encoded_is_in_no_log(folder: Path, tmp_path: Path) -> None:
    """A tokenizer whose vocabulary has holes fails on it; the process says that, and not on what."""
    broken = tmp_path / "model"
    await asyncio.to_thread(_copy_without_letters, folder, broken)
    async with worker_of(broken, tmp_path) as worker:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await started(worker, LONG)
        assert failure.value.code() is grpc.StatusCode.INTERNAL
        assert told_words(failure.value.details() or "") == set()
    log = worker.log_path.read_text()
    assert "the prompt could not be encoded" in log
    assert told_words(log) == set()


def _copy_without_letters(source: Path, target: Path) -> None:
    """The same model with a tokenizer that knows no `z`, nor what stands for unknown letters."""
    shutil.copytree(source, target)
    index = json.loads((target / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    (target / "model_index.json").write_text(json.dumps(index))
    folder = target / "tokenizer"
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    parts = json.loads((folder / "tokenizer.json").read_text())
    model = parts["model"]
    model["unk_token"] = "there is none"
    model["vocab"] = {token: number for token, number in model["vocab"].items() if not token.startswith("z")}
    (folder / "tokenizer.json").write_text(json.dumps(parts))
