from pathlib import Path

import pytest

from benchmarks.reference_world import write_world


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Folder with retrieval/, ranking/ and fallback/; 250 users, 400 items."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, users=250, items=400)
    return folder
