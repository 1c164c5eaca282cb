"""Logs of a process that sees prompts: no line of a library carries one, whatever the library does.

A prompt is private, and libraries log what they are given: the part that was cut off, or an error that quotes its
input. So the text of a library's record is withheld where the record is made; only its logger, level and place stay.
That holds for every handler, also for those that libraries bring themselves. Our own lines are written with care and
stay as they are; of exceptions, ours too, only a text of our own is shown. Loggers that never see a prompt keep
their texts: they tell what is wrong with a model or a download.
"""

import logging
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
WITHHELD = "its text is withheld, for it may hold a prompt"
OWN = ("t2i_", "t2ictl")
NEVER_SEE_PROMPTS = (
    *("kopf", "kubernetes", "huggingface_hub", "httpx", "httpcore", "urllib3", "filelock", "faiss", "accelerate"),
    *("diffusers.configuration_utils", "diffusers.models.modeling_utils", "diffusers.models.model_loading_utils"),
    *("diffusers.pipelines.pipeline_loading_utils", "transformers.configuration_utils", "transformers.modeling_utils"),
    *("opentelemetry.exporter", "opentelemetry.sdk"),
)
REPEATING = "opentelemetry."
REPEAT_AFTER_S = 60.0
MAX_REPEATING = 64
#: They tell of every cut prompt; whoever sent it is told in the answer.
_TALK_OF_PROMPTS = ("diffusers.pipelines", "transformers.tokenization_utils_base")
#: diffusers and transformers import torchao wherever it is installed. These then tell of older names, which matter for
#: checkpoints that torchao saved. `precision: fp8` reads none. A warning of torch about its own `jit` comes along.
_TALK_OF_TORCHAO = ("torch.utils._pytree", "diffusers.quantizers.torchao")
_CONSTANT_FIRST_LINE = ("asyncio",)  # what follows shows the exception

log = logging.getLogger(__name__)


def set_up_logs() -> None:
    """Our lines from INFO up on stderr, of libraries from WARNING up, prompts of none."""
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: record.levelno >= logging.WARNING or _may_speak(record.name))
        handler.addFilter(RepeatsLeftOut())
    keep_prompts_out()


def keep_prompts_out() -> None:
    """From now on, in this process; a second call does nothing."""
    make = logging.getLogRecordFactory()
    if isinstance(make, _CarefulRecords):
        return
    logging.setLogRecordFactory(_CarefulRecords(make))
    for name in (*_TALK_OF_PROMPTS, *_TALK_OF_TORCHAO):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
    warnings.showwarning = _log_warning
    sys.excepthook = _log_uncaught
    sys.unraisablehook = lambda lost: _log_uncaught(lost.exc_type, lost.exc_value, lost.exc_traceback)
    threading.excepthook = lambda lost: _log_uncaught(lost.exc_type, lost.exc_value, lost.exc_traceback)


class RepeatsLeftOut:
    """A filter of one handler: what libraries say at every try while a server is away is said once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}  # when last, and how often it was left out since

    def __call__(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(REPEATING):
            return True
        key, now_s = (record.name, str(record.msg)), self._clock()
        with self._lock:
            last_s, left_out = self._said.get(key, (-REPEAT_AFTER_S, 0))
            if now_s - last_s < REPEAT_AFTER_S:
                self._said[key] = (last_s, left_out + 1)
                return False
            if len(self._said) >= MAX_REPEATING:  # one that puts changing values into its texts
                self._said.clear()
            self._said[key] = (now_s, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like this were left out)", ()
        return True


class _CarefulRecords:
    """The record factory: takes texts out before any handler sees them."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *arguments: Any, **named: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*arguments, **named)
        if not _may_speak(record.name):
            record.msg, record.args = _without_text(record), ()
        if record.exc_info:
            record.exc_text = "\n".join(_without_texts(record.exc_info[1]))
            record.exc_info = None  # formatters take the text that is there
        return record


def _may_speak(name: str) -> bool:
    return name.startswith(OWN) or any(name == known or name.startswith(f"{known}.") for known in NEVER_SEE_PROMPTS)


def _without_text(record: logging.LogRecord) -> str:
    where = f"at {record.filename}:{record.lineno}; {WITHHELD}"
    if record.name in _CONSTANT_FIRST_LINE and isinstance(record.msg, str):
        return f"{record.msg.partition(chr(10))[0]} {where}"
    return f"{record.name} said something {where}"


def _without_texts(error: BaseException | None) -> Iterator[str]:
    """A traceback, causes first, with the types of exceptions and of their texts those that are ours."""
    seen: set[int] = set()
    chain: list[BaseException] = []
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for one in reversed(chain):
        yield "Traceback (most recent call last):"
        yield from (line.rstrip("\n") for line in traceback.format_tb(one.__traceback__))
        yield name_error(one)
        if isinstance(one, BaseExceptionGroup):
            for inner in one.exceptions:
                yield from (f"  | {line}" for line in _without_texts(inner))


def name_error(error: BaseException) -> str:
    """The type, and the text if it is our own or the system's: a library's may quote the prompt it failed on."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror}"
    return f"{name}: {error}" if kind.__module__.startswith(OWN) else name


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """In place of `warnings.showwarning`: what was warned of, and where."""
    del message, file, line
    log.warning("%s at %s:%d; %s", category.__name__, Path(filename).name, lineno, WITHHELD)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    """In place of the interpreter's hooks, which print the text."""
    if issubclass(kind, KeyboardInterrupt):
        return
    found = error if error is not None else kind()
    log.critical("an error that nobody caught", exc_info=(kind, found, where))
