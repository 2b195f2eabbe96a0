"""docs/dependencies.md has a line for every direct dependency, and constraints.txt a version."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def direct() -> dict[str, str]:
    """Name → extra, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    return {re.split(r"[\s\[<>=!~;]", line)[0]: extra for extra, lines in groups.items() for line in lines}


def test_every_direct_dependency_is_explained() -> None:
    rows = re.findall(r"^\| ([\w.-]+) \| (\w+) \|.*\| ([^|]+) \|$", (ROOT / "docs/dependencies.md").read_text(), re.M)
    assert {name: extra for name, extra, _ in rows if name != "package"} == direct()


def test_every_direct_dependency_is_locked() -> None:
    locked = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert {re.sub(r"[-_.]+", "-", name).lower() for name in direct()} <= locked
