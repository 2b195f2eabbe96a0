"""Documents that an operator writes: TOML, checked by their own type."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from contracts.errors import DataError

D = TypeVar("D", bound=BaseModel)


def read_toml(kind: type[D], path: Path, name: str) -> D:
    """name: what the document is called in an error.

    Raises:
        DataError: missing, not TOML, an unknown key, or a value out of range.
    """
    try:
        return kind.model_validate(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{name} {path}: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
        raise DataError(f"{name} {path}: {problems}") from error
