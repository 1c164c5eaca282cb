"""The operator's command line: flags before environment before defaults, and mistakes that name the flag."""

import pytest

from t2i_operator.settings import parse_arguments


def test_flag_beats_environment_beats_default() -> None:
    """The chart sets the environment or flags; both must reach the same field."""
    environment = {"T2I_NAMESPACES": "a, b", "T2I_LEASE_NAME": "from-env"}
    settings = parse_arguments(["--lease-name", "from-flag"], environment)
    assert settings.namespaces == ("a", "b")
    assert settings.lease_name == "from-flag"
    assert parse_arguments([], {}).namespaces == ()


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--image-pull-policy", "Sometimes"), ("--log-level", "loud"), ("--resync-s", "soon"), ("--max-parallel", "0")],
)
def test_mistake_names_its_flag(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A typo in the chart's values ends the start with a message, not a stack trace."""
    with pytest.raises(SystemExit):
        parse_arguments([flag, value], {})
    assert flag in capsys.readouterr().err
