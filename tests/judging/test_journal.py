"""The journal of a measurement: what a process leaves that ended at a bad moment, and what is no journal at all."""

from pathlib import Path

import pytest

from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.journal import Journal

ABOUT = {"model": "m", "judges": ["mine v1"]}


def test_one_that_ended_within_its_first_line_begins_anew(tmp_path: Path) -> None:
    """What is kept from then on is found again."""
    (tmp_path / "journal.jsonl").write_text('{"schema": "t2ise')
    Journal.open(tmp_path, ABOUT).keep("levels", [1, 2])
    assert Journal.open(tmp_path, ABOUT).found("levels") == [1, 2]


@pytest.mark.parametrize("line", ["a red fox", '{"key": "a red fox"}', "[]"])
def test_a_spoiled_line_is_told_without_what_it_holds(line: str, tmp_path: Path) -> None:
    """Lines hold prompts, and errors go to logs."""
    Journal.open(tmp_path, ABOUT).keep("levels", [1, 2])
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(SamplesInvalid, match="is no journal of a profile: remove its folder") as failed:
        Journal.open(tmp_path, ABOUT)
    assert "fox" not in str(failed.value)
    assert failed.value.__cause__ is None
