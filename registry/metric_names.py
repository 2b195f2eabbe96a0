"""Names that MLflow allows, and the way back to ours."""

import re


def metric_name(name: str) -> str:
    return legal(name.replace("@", "_at_"))


def metric_label(name: str) -> str:
    """The inverse of `metric_name`, for the names that this project uses."""
    return name.replace("_at_", "@")


def legal(name: str) -> str:
    return re.sub(r"[^/\w.\- :]", "_", name)[:250]
