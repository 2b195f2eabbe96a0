"""Passes for testers, signed with the key of the routing table: `bentos/gateway/passes.py` reads them."""

from collections.abc import Mapping
from typing import Literal

from contracts.errors import UsageError
from contracts.routing import MAX_PASS_BYTES, Pass
from contracts.signing import Signer

MAX_MINUTES = 30 * 24 * 60  # a pass cannot be taken back, so none holds for long


def make_pass(
    signer: Signer,
    *,
    now_us: int,
    minutes: float,
    variant: Literal["champion", "candidate", "control"] | None = None,
    experiments: Mapping[str, str] | None = None,
    flags: Mapping[str, bool] | None = None,
    name: str = "",
) -> str:
    """The value of the header `x-streamrec-pass`.

    Args:
        experiments: id → `treatment` or `control`.

    Raises:
        UsageError: it would hold for no time or too long, force nothing, name an arm that there is not, or be too long.
    """
    if not 0 < minutes <= MAX_MINUTES:
        raise UsageError(f"a pass holds for up to {MAX_MINUTES} minutes, not {minutes:g}")
    if variant is None and not experiments and not flags:
        raise UsageError("a pass forces a variant, an experiment or a flag; this one does nothing")
    if wrong := set((experiments or {}).values()) - {"treatment", "control"}:
        raise UsageError(f"the arms of an experiment are `treatment` and `control`, not {', '.join(sorted(wrong))}")
    if len(name) > 64:
        raise UsageError(f"the name of a pass has at most 64 characters, not {len(name)}")
    forced = Pass(
        variant=variant,
        experiments=dict(experiments or {}),
        flags=dict(flags or {}),
        expires_us=now_us + int(minutes * 60_000_000),
        name=name,
    )
    token = signer.token(forced.model_dump_json(exclude_defaults=True))
    if len(token) > MAX_PASS_BYTES:
        raise UsageError(f"a pass of {len(token)} characters is longer than the header may be ({MAX_PASS_BYTES})")
    return token
