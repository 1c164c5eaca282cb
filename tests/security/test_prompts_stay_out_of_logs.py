"""Whatever a library does with a prompt - log, warn, fail - no handler of the process writes it.

Each way runs in a process of its own, as `python -m t2i_worker` sets up its logs; all that it wrote is read.
"""

import logging
import subprocess
import sys

import pytest

from t2i_runtime.logs import REPEAT_AFTER_S, RepeatsLeftOut

SECRET = "a violet heron"
BEGIN = f"""
import asyncio, logging, sys, threading, warnings
from t2i_runtime.logs import keep_prompts_out, set_up_logs
set_up_logs()
PROMPT = {SECRET!r}
"""
#: A library that has a handler of its own and tells nobody else, as transformers and diffusers do.
OWN_HANDLER = """
library = logging.getLogger("transformers")
library.addHandler(logging.StreamHandler(sys.stdout))
library.propagate = False
"""
WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "a library logs it": (
        "logging.getLogger('library.inner').warning('cut off: ' + PROMPT)",
        ("WARNING library.inner: ", "<string>"),
    ),
    "as an argument": ("logging.getLogger('library').error('cut off: %s', PROMPT)", ("ERROR library: ",)),
    "by a handler of its own": (
        OWN_HANDLER + "logging.getLogger('transformers.x').error(f'cut off: {PROMPT}')",
        ("transformers.x said something at <string>",),
    ),
    "with the error that quotes it": (
        "try:\n    raise ValueError(PROMPT)\nexcept ValueError:\n    logging.getLogger('library').exception(PROMPT)",
        ("Traceback", "ValueError"),
    ),
    "we log a library's error with its traceback": (
        "try:\n    raise ValueError(PROMPT)\n"
        "except ValueError:\n    logging.getLogger('t2i_worker').exception('it failed')",
        ("t2i_worker: it failed", "\nValueError\n"),
    ),
    "a cause of an error": (
        "try:\n    try:\n        raise KeyError(PROMPT)\n    except KeyError as error:\n"
        "        raise RuntimeError('x') from error\n"
        "except RuntimeError:\n    logging.getLogger('t2i_worker').exception('it failed')",
        ("KeyError\n", "RuntimeError\n"),
    ),
    "one of a group": (
        "try:\n    raise ExceptionGroup('g', [ValueError(PROMPT)])\n"
        "except ExceptionGroup:\n    logging.getLogger('t2i_worker').exception('it failed')",
        ("  | ValueError",),
    ),
    "a warning": ("warnings.warn(PROMPT)", ("UserWarning at <string>:",)),
    "nobody catches it": ("raise ValueError(PROMPT)", ("an error that nobody caught", "ValueError")),
    "in a thread": (
        "def fail(): raise ValueError(PROMPT)\nthread = threading.Thread(target=fail); thread.start(); thread.join()",
        ("an error that nobody caught", "ValueError"),
    ),
    "in a finaliser": (
        "class Held:\n    def __del__(self): raise ValueError(PROMPT)\nheld = Held(); del held",
        ("an error that nobody caught", "ValueError"),
    ),
    "in a task that nobody awaits": (
        "async def fail(): raise ValueError(PROMPT)\n"
        "async def main():\n    task = asyncio.create_task(fail())\n    await asyncio.sleep(0)\n    del task\n"
        "asyncio.run(main())",
        ("Task exception was never retrieved", "ValueError"),
    ),
}


def written(code: str) -> str:
    """All that a process wrote that ran this."""
    done = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=180)
    return done.stdout + done.stderr


@pytest.mark.parametrize(("code", "words"), WAYS.values(), ids=WAYS.keys())
def test_no_handler_writes_a_prompt(code: str, words: tuple[str, ...]) -> None:
    """What is left tells what happened and where."""
    log = written(code)
    assert not [word for word in SECRET.split()[1:] if word in log], log
    for word in words:
        assert word in log


def test_cut_prompts_are_no_lines_at_all() -> None:
    """Pipelines warn of each; the caller is told, so a log of a busy day is not full of it."""
    assert written("logging.getLogger('diffusers.pipelines.flux.pipeline_flux').warning(PROMPT)") == ""


def test_what_never_sees_a_prompt_keeps_its_text() -> None:
    """Why a download fails, and our own lines; of libraries' news only that."""
    log = written(
        "logging.getLogger('huggingface_hub.file_download').warning('no route to the hub')\n"
        "logging.getLogger('t2i_worker').info('worker a serves')\n"
        "logging.getLogger('library').info('nothing of importance')"
    )
    assert "no route to the hub" in log
    assert "worker a serves" in log
    assert "library" not in log


def test_our_own_errors_keep_their_text() -> None:
    """They are written with care, and name the field to change."""
    log = written(
        "from t2i_runtime.errors import SecurityError\n"
        "try:\n    raise SecurityError('tls.crt is missing')\n"
        "except SecurityError:\n    logging.getLogger('t2i_worker').exception('it failed')"
    )
    assert "SecurityError: tls.crt is missing" in log


def test_what_a_library_says_at_every_try_is_said_once_a_minute() -> None:
    """While a collector is away its exporter warns every few seconds, in every process."""
    now_s, said = 0.0, []
    keep = RepeatsLeftOut(lambda: now_s)

    def say(name: str, text: str, *values: object) -> None:
        record = logging.LogRecord(name, logging.WARNING, "p", 1, text, values, None)
        if keep(record):
            said.append(record.getMessage())

    for try_number in range(4):
        say("opentelemetry.exporter.otlp", "retrying in %ds", try_number)
    say("opentelemetry.exporter.otlp", "failed")
    for _ in range(2):
        say("t2i_gateway", "ours")
    assert said == ["retrying in 0s", "failed", "ours", "ours"]
    now_s = REPEAT_AFTER_S
    say("opentelemetry.exporter.otlp", "retrying in %ds", 9)
    say("opentelemetry.exporter.otlp", "failed")
    assert said[4:] == ["retrying in 9s (3 more like this were left out)", "failed"]
