"""A registered model version as a value, and the words that name one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from contracts.errors import UsageError
from registry.artifacts import KINDS, Kind, model_name

KIND_OF: dict[str, Kind] = {model_name(kind): kind for kind in KINDS}
CHAMPION = "champion"
CHALLENGER = "challenger"

_REF = re.compile(r"^(?:models:/)?(?P<name>[\w.-]+)(?:@(?P<alias>[\w.-]+)|/(?P<number>\d+|latest))$")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """source: where the bundle, `MLmodel` and `evidence.json` lie. tags: the lineage, in words."""

    kind: Kind
    number: int
    run_id: str
    source: str
    model_id: str
    created_us: int
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return model_name(self.kind)

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.number}"


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What a person wrote: one of `alias` and `number` is set; `number` 0 is the newest."""

    kind: Kind
    alias: str | None
    number: int | None

    def __str__(self) -> str:
        tail = f"@{self.alias}" if self.alias else f"/{self.number or 'latest'}"
        return f"models:/{model_name(self.kind)}{tail}"


def parse_ref(text: str, kind: Kind | None = None) -> ModelRef:
    """`models:/NAME/N`, `models:/NAME@ALIAS`, and both without `models:/`; N may be `latest`.

    Raises:
        UsageError: none of these, a model that is not ours, or not the `kind` that was asked for.
    """
    match = _REF.match(text.strip())
    names = ", ".join(KIND_OF)
    if not match:
        raise UsageError(
            f"{text!r} names no model version: write models:/NAME/N or NAME@ALIAS, where NAME is one of {names}"
        )
    found = KIND_OF.get(match["name"])
    if found is None:
        raise UsageError(f"{text!r}: there is no model {match['name']!r}; the models are {names}")
    if kind is not None and found != kind:
        raise UsageError(f"{text!r} is a {found} model, wanted {model_name(kind)}")
    if match["alias"]:
        return ModelRef(found, match["alias"], None)
    return ModelRef(found, None, 0 if match["number"] == "latest" else int(match["number"]))
