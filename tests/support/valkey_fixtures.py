"""Fixtures of a real Valkey: one server for the test session, handed out empty to each test.

Without a program every test that asks for it fails with what to install; none is skipped.
"""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from t2i_testing_kit.debian_program import ProgramMissing
from t2i_testing_kit.valkey.assets import valkey_command
from t2i_testing_kit.valkey.server import ValkeyServer, valkey_server


@pytest.fixture(scope="session")
def valkey_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """One server for the whole run: use `valkey`."""
    try:
        valkey_command(lambda _: None)
    except ProgramMissing as error:
        pytest.fail(str(error), pytrace=False)
    with valkey_server(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest_asyncio.fixture
async def valkey(valkey_session: ValkeyServer) -> AsyncIterator[ValkeyServer]:
    """The session's server, emptied."""
    valkey_session.command("FLUSHALL")
    yield valkey_session
