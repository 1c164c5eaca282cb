"""The Valkey server of tests and benchmarks: `python -m t2i_testing_kit.valkey.assets` (`make valkey-assets`)."""

import sys

from t2i_testing_kit.debian import Say
from t2i_testing_kit.debian_program import DebianProgram, print_program

VALKEY = DebianProgram(
    name="valkey",
    setting="VALKEY_SERVER",
    on_path=("valkey-server", "redis-server"),
    packages=(("valkey-server",), ("redis-server",)),  # the first from the release or its backports
    unpacked=("usr/bin/valkey-server", "usr/bin/redis-server"),
    install="Tests of the redis:// store need a real Valkey or Redis server (7 or newer). Install valkey-server or "
    "redis-server, or set VALKEY_SERVER to the program's path.",
)


def valkey_command(say: Say) -> tuple[str, ...]:
    """How to start the server, without arguments; fetches it if need be.

    Raises:
        ProgramMissing: there is none.
    """
    found = VALKEY.ensure(say)
    variables = [f"{name}={value}" for name, value in found.variables.items()]
    return ("/usr/bin/env", *variables, str(found.path)) if variables else (str(found.path),)


if __name__ == "__main__":
    sys.exit(print_program(VALKEY))
