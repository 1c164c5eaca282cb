"""A pool on this machine that cannot come up: said at once, in the sentence of the process that knows why."""

import asyncio
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from t2i_policy.level import Level
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.profile_document import render_profile
from t2i_runtime.listening import listening_socket
from t2i_sources import builtin_folder
from t2ictl.app import app
from t2ictl.local_pool import LocalOptions, LocalPool, read_pool
from t2ictl.processes import ServerProcess

pytestmark = pytest.mark.process
EXAMPLE = Path(__file__).parents[2] / "examples" / "pool-scenes.yaml"
PROFILE = Path(__file__).parents[2] / "scenes" / "t2i_scenes" / "model" / "profile.json"
LIMIT_S = 180.0


def pool_of(source: str, folder: Path) -> Path:
    """The example with another model."""
    path = folder / "pool.yaml"
    path.write_text(EXAMPLE.read_text().replace("builtin://scenes", source))
    return path


def worker(source: str, folder: Path) -> ServerProcess:
    """Not started."""
    arguments = ["--pool", str(pool_of(source, folder)), "--group", "cpu", "--name", "cpu-0"]
    return ServerProcess("cpu-0", "t2i_worker", [*arguments, "--models-dir", str(folder)], folder)


async def ended(process: ServerProcess) -> int:
    """Its exit code."""
    assert process.process is not None
    async with asyncio.timeout(LIMIT_S):
        return await process.process.wait()


def said_by(arguments: list[str]) -> str:
    """What a command that fails prints, in one line."""
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    said = " ".join(result.output.split())
    assert result.exit_code == 1
    assert "draining" not in said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("command", ["local up", "demo", "profile"])
@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("file:///nowhere/model", "no model_index.json found there; it must be a diffusers model folder"),
        ("pvc://claim/model", "no model_index.json found there; it must be a diffusers model folder"),
        ("builtin://scene", "builtin://scenes and builtin://scenes/distilled are"),
    ],
)
def test_wrong_model_path_is_told_before_anything_starts(
    command: str, source: str, sentence: str, tmp_path: Path
) -> None:
    """Whichever command it is, and without a profile or with one."""
    arguments = [*command.split(), "--pool", str(pool_of(source, tmp_path))]
    said = said_by(arguments)
    assert "error: model.source" in said
    assert said.endswith(sentence)


def test_worker_that_cannot_start_is_quoted(tmp_path: Path) -> None:
    """Only it finds out that its profile is none."""
    (tmp_path / "profile.json").write_text("{}")
    pool = pool_of("builtin://scenes", tmp_path)
    pool.write_text(pool.read_text().replace("workers: 2", "workers: 2, engine: simulated"))
    profile = str(tmp_path / "profile.json")
    said = said_by(["local", "up", "--listen", "127.0.0.1:0", "--pool", str(pool), "--profile", profile])
    assert re.search(r"error: cpu-\d: the worker cannot start: .*profile", said)


@pytest.mark.parametrize(
    ("part", "made", "sentence"),
    [
        ("gateway.results", (), "gateway.results.secretName: there is no folder .*/bucket: make it"),
        ("gateway.results", ("bucket/other",), "gateway.results.secretName: .*with the keys access_key_id"),
        ("gateway.results", None, "gateway.results.secretName names the Secret bucket: .*--secrets"),
        ("safety.prompt", (), "safety.prompt.secretName: there is no folder"),
        ("safety.prompt", ("bucket/token",), "safety.prompt.secretName: .*is not a token"),
    ],
)  # fmt: skip
def test_secret_that_is_missing_is_told_before_a_worker_starts(
    tmp_path: Path, part: str, made: tuple[str, ...] | None, sentence: str
) -> None:
    """Warming a model takes minutes, and the gateway that reads the Secret starts after it."""
    document = yaml.safe_load(EXAMPLE.read_text())
    first, _, second = part.partition(".")
    address = {"url": "s3://images"} if second == "results" else {"url": "http://127.0.0.1:1"}
    document["spec"].setdefault(first, {})[second] = {**address, "secretName": "bucket"}
    pool = tmp_path / "pool.yaml"
    pool.write_text(yaml.safe_dump(document))
    secrets = tmp_path / "secrets"
    for name in made or ():
        (secrets / name).parent.mkdir(parents=True, exist_ok=True)
        (secrets / name).touch()
    given = () if made is None else ("--secrets", str(secrets))
    folder = tmp_path / "running"
    addresses = ["--listen", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--folder", str(folder)]
    assert re.search(sentence, said_by(["local", "up", "--pool", str(pool), *addresses, *given]))
    assert not [*folder.glob("*.log")]


async def test_wrong_model_path_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    """Importing it takes as long as everything else together."""
    probe = "import sys; sys.argv = sys.argv[1:]\n"
    probe += "from t2i_worker.__main__ import main\ncode = main()\nprint('torch' in sys.modules, code)"
    one = worker("file:///nowhere/model", tmp_path)
    command = [sys.executable, "-c", probe, "t2i-worker", *one.arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate()
    assert out.decode().split() == ["False", "2"]
    assert "Traceback" not in err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_worker_told_to_stop_while_it_starts_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """It has nothing to drain. Here a hub goes on sending its answer for ever."""
    asked = asyncio.Event()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        with suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(1)

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as hub:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.sockets[0].getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        one = worker("hf://some/model", tmp_path)
        await one.start()
        async with asyncio.timeout(LIMIT_S):
            await asked.wait()
        assert one.process is not None
        one.process.send_signal(number)
        assert await ended(one) == 0
    assert "told to stop before the model was ready" in one.log_path.read_text()


def test_last_words_are_those_of_this_start(tmp_path: Path) -> None:
    """A folder is kept between runs, and its logs grow."""
    process = ServerProcess("p", "none", (), tmp_path)
    process.log_path.write_text("2026-01-01 00:00:00,000 CRITICAL t2i_worker: of another day\n")
    process.log_begins = process.log_path.stat().st_size
    with process.log_path.open("a") as log:
        log.write("2026-01-02 00:00:00,000 INFO t2i_worker: begins\n")
        assert process.complaint() == "p ended before it was ready:\n"
        log.write("2026-01-02 00:00:01,000 CRITICAL t2i_worker: two\nlines\nTraceback (most recent call last):\n")
    assert process.complaint() == "p: two\nlines"


@pytest.mark.parametrize(
    ("visible", "devices"),
    [("0,1", ["cuda:0", "cuda:1", "cuda:0"]), ("5", ["cuda:0"] * 3), ("", [])],
    ids=["two", "one", "none"],
)
def test_each_worker_gets_a_device_of_its_own(
    visible: str, devices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this all workers of a machine share the first GPU. With more workers than GPUs they go round."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    pool_file = pool_of("builtin://scenes", tmp_path)
    pool_file.write_text(pool_file.read_text().replace("workers: 2", "workers: 3"))
    local = LocalPool(LocalOptions(pool_file))
    local.pool, local._folder = read_pool(pool_file), tmp_path
    given = [worker.arguments for worker in local._make_workers()]
    assert [one[one.index("--device") + 1] for one in given if "--device" in one] == devices


def test_processes_read_the_levels_that_the_profile_stands_for(tmp_path: Path) -> None:
    """Written down once, beside their logs; the user's own file stays as it is."""
    pool_file = pool_of("builtin://scenes", tmp_path)
    document = yaml.safe_load(pool_file.read_text())
    document["spec"].pop("levels", None)
    pool_file.write_text(yaml.safe_dump(document))
    band = BandLoss(Level(0, 12, forecast=2), -1.0, 1.01, 0.0, 0.0, 99)
    profile = tmp_path / "measured.json"
    profile.write_text(render_profile(LevelProfile("digest", "cpu", 12, (0.01,), 0.0, (band,))))
    local = LocalPool(LocalOptions(pool_file, profile=profile))
    local.pool, local._folder = read_pool(pool_file), tmp_path / "running"
    local._folder.mkdir()
    assert not local.pool.spec.levels
    local._document = local._write_document()
    (read,) = {worker.arguments[worker.arguments.index("--pool") + 1] for worker in local._make_workers()}
    assert read_pool(Path(read)).spec.ladder.levels == (Level(0, 12), band.level)
    assert not read_pool(pool_file).spec.levels


@pytest.mark.parametrize("option", ["--listen", "--listen-http"])
def test_a_taken_port_is_said_before_a_model_is_loaded(option: str) -> None:
    """With the option that chooses another one; the other door takes any free port."""
    free = {"--listen": "127.0.0.1:0", "--listen-http": "127.0.0.1:0"}
    with listening_socket("127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        doors = [text for pair in {**free, option: address}.items() for text in pair]
        said = said_by(["local", "up", "--pool", str(EXAMPLE), *doors])
    assert f"cannot listen on {address}: Address already in use; choose another address with {option}" in said


@pytest.mark.parametrize(("floor", "told"), [(99, True), (70, False)])
def test_model_that_the_floor_forbids_is_told(tmp_path: Path, floor: int, told: bool) -> None:
    """Whoever starts the pool hears that workers of it will stand idle."""
    text = (EXAMPLE.parent / "pool-two-models.yaml").read_text()
    pool_file = tmp_path / "pool.yaml"
    pool_file.write_text(text.replace("minQualityPercent: 70", f"minQualityPercent: {floor}"))
    folder = builtin_folder("builtin://scenes")
    assert folder is not None
    local = LocalPool(LocalOptions(pool_file, profile=folder / "profile.json"))
    local.pool, local._folder = read_pool(pool_file), tmp_path
    local._write_document()
    assert [sentence.partition(":")[0] for sentence in local.below_floor] == (
        ["No request may be served by model distilled"] if told else []
    )
