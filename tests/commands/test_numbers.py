"""Numbers on command lines: one out of range is the user's mistake, told with the flag and the limit."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from t2i_gateway.settings import parse_arguments as parse_gateway
from t2i_operator.settings import parse_arguments as parse_operator
from t2i_worker.settings import parse_arguments as parse_worker
from t2ictl.app import COMMANDS, app, imported

WORKER = ("--pool=p", "--group=g", "--name=n")
GATEWAY = ("--pool=p", "--profile=p", "--workers=w:1")


def functions() -> Iterator[tuple[str, Any]]:
    """Every command by its words, as `local up`."""
    for name in COMMANDS:
        found = imported(name)
        if not isinstance(found, typer.Typer):
            yield name, found
            continue
        for command in found.registered_commands:
            assert command.callback is not None
            yield f"{name} {command.name or command.callback.__name__}", command.callback


def numbers() -> Iterator[tuple[str, Sequence[Any]]]:
    """`COMMAND PARAMETER` of everything that takes a number, and what typer was told about it."""
    for words, function in functions():
        for name, hint in get_type_hints(function, include_extras=True).items():
            kinds = {hint, *get_args(hint), *(inner for part in get_args(hint) for inner in get_args(part))}
            if kinds & {int, float}:
                yield f"{words} {name}", getattr(hint, "__metadata__", ())


def test_every_number_has_both_limits() -> None:
    """One without them ends in a traceback of whatever it is given to."""
    found = dict(numbers())
    assert {"generate seed", "explain timeout_s", "local up threads", "demo captions", "plan demand"} <= found.keys()
    bounded = {name for name, told in found.items() if any(one.min is not None and one.max is not None for one in told)}
    assert found.keys() - bounded == set()


@pytest.mark.parametrize(
    ("arguments", "flag", "limit"),
    [
        (["generate", "x", "--seed", "18446744073709551616"], "--seed", "18446744073709551615"),
        (["generate", "x", "--seed", "-1"], "--seed", "0"),
        (["generate", "x", "--max-skipped-steps", "4294967296"], "--max-skipped-steps", "4294967295"),
        (["generate", "x", "--steps", "4294967296"], "--steps", "4294967295"),
        (["generate", "x", "--guidance-scale", "nan"], "--guidance-scale", "equal to 30"),
        (["explain", "x", "--guidance-scale", "30.5"], "--guidance-scale", "equal to 30"),
        (["generate", "x", "--timeout-s", "-1"], "--timeout-s", "0.001"),
        (["explain", "x", "--timeout-s", "inf"], "--timeout-s", "86400"),
        (["demo", "--seed", "-1"], "--seed", "0"),
        (["profile", "--seed", "-1"], "--seed", "0"),
        (["simulate", "--arrivals", "x", "--seed", "-1"], "--seed", "0"),
        (["plan", "--demand", "nan"], "--demand", "1000000"),
        (["local", "up", "--threads", "-1"], "--threads", "0"),
    ],
)
def test_number_out_of_range_is_a_usage_error(arguments: list[str], flag: str, limit: str) -> None:
    """Exit code 2, as for every wrong use of the command line."""
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    said = " ".join(result.output.split())
    assert result.exit_code == 2
    assert f"'{flag}'" in said
    assert limit in said


@pytest.mark.parametrize(
    ("parse", "good", "flag", "values"),
    [
        (parse_worker, WORKER, "--threads", ("-1", "1025", "1.5", "x")),
        (parse_worker, WORKER, "--max-batch", ("0", "-1")),
        (parse_worker, WORKER, "--drain-s", ("-1", "nan", "inf", "x")),
        (parse_gateway, GATEWAY, "--drain-s", ("-1", "nan", "inf", "x")),
        (parse_operator, (), "--resync-s", ("0", "-1", "nan", "inf", "x")),
        (parse_operator, (), "--max-parallel", ("0", "inf", "nan", "x")),
    ],
)
def test_servers_refuse_numbers_out_of_range(
    parse: Callable[[list[str]], object],
    good: Sequence[str],
    flag: str,
    values: Sequence[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At the start, with the flag and what it may be."""
    parse(list(good))
    for value in values:
        with pytest.raises(SystemExit) as ended:
            parse([*good, f"{flag}={value}"])
        assert ended.value.code == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert flag in said
        assert "number" in said
        assert repr(value) in said
