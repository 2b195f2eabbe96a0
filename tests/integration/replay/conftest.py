import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.changing_service import Service, write_worlds


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return write_worlds(tmp_path_factory.mktemp)


@pytest.fixture
def service(tmp_path: Path, worlds: Mapping[str, Path]) -> Iterator[Any]:
    """Makes a service and closes it at the end."""
    made: list[Service] = []

    def make(clock: str = "log_end", **settings: Any) -> Service:
        made.append(Service(tmp_path / "home", worlds[clock], **settings))
        return made[-1]

    yield make
    for one in made:
        asyncio.run(one.close())
