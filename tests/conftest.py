"""What tests of several folders share: loopback servers, and what holds wherever LiteLLM is called."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

WITH_LITELLM = tuple(Path(__file__).parent / folder for folder in ("reliability/faults", "replay/litellm_policy"))


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def serving() -> Callable[[ThreadingHTTPServer], AbstractContextManager[None]]:
    """Runs a server in a thread until the block ends."""
    return running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The extra that tests of LiteLLM need, and the warnings of its libraries."""
    missing = importlib.util.find_spec("litellm") is None
    for item in items:
        if any(folder in item.path.parents for folder in WITH_LITELLM):
            item.add_marker(pytest.mark.skipif(missing, reason="the extra [litellm] is not installed"))
            # LiteLLM installs this very filter when it is imported; pytest undoes it for each test.
            item.add_marker(pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier.*:UserWarning"))
            # aiohttp warns of a request over 1 MiB: a conversation with huge replies in it.
            item.add_marker(pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning"))
