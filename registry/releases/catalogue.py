"""The catalogue of policies: built in, `registry/policies/*.toml`; an operator's own, `home/policies/*.toml`."""

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from contracts.errors import NotFound, UsageError
from registry.releases.policy import Policy
from registry.releases.values import PolicyText

BUILT_IN = Path(__file__).parents[1] / "policies"
MAX_BYTES = 1 << 20
ABSOLUTE = ("p99_ms", "score_correlation", "score_range", "schema", "overlap", "score_shift")  # of a shadow alone


@dataclass(frozen=True, slots=True)
class Listing:
    """problems: of files that are no policies; they do not keep anyone from using the others."""

    texts: tuple[PolicyText, ...]
    problems: tuple[str, ...]


def read_policy(label: str, home: Path) -> tuple[Policy, PolicyText]:
    """`NAME@VERSION`, or the newest version of `NAME`.

    Raises:
        NotFound: no such policy. UsageError: two texts have one name and version, or a file that may be it is broken;
        names file and key.
    """
    found: dict[str, tuple[Policy, PolicyText, Path]] = {}
    broken: list[UsageError] = []
    name, _, version = label.partition("@")
    for path in _files(home):
        try:
            policy, text = parse(path)
        except UsageError as error:
            broken.append(error)
            continue
        if policy.name != name or (version and policy.version != version):
            continue
        before = found.get(policy.version)
        if before and before[1].sha256 != text.sha256:
            raise UsageError(
                f"{before[2]} and {path} are both {text.label}, with different texts",
                next_command=f"give {path} another version",
            )
        found.setdefault(policy.version, (policy, text, path))
    if found:
        policy, text, _ = found[max(found, key=_age)]
        return policy, text
    if broken:
        raise broken[0]
    known = ", ".join(text.label for text in policies(home).texts)
    raise NotFound(f"no policy {label}, only {known}", next_command="streamrec release start TAG --policy default")


def policies(home: Path) -> Listing:
    """All that can be read, by name and version."""
    texts: dict[str, PolicyText] = {}
    problems = []
    for path in _files(home):
        try:
            _, text = parse(path)
        except UsageError as error:
            problems.append(error.message)
            continue
        if texts.setdefault(text.label, text).sha256 != text.sha256:
            problems.append(f"{path}: {text.label} is there already, with another text")
    ordered = sorted(texts.values(), key=lambda t: (t.name, _age(t.version)))
    return Listing(tuple(ordered), tuple(problems))


def parse(path: Path) -> tuple[Policy, PolicyText]:
    """
    Raises:
        UsageError: not readable, not TOML, an unknown key or metric, a value out of range; names the key.
    """
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise UsageError(f"policy {path}: {len(data):,} bytes, at most {MAX_BYTES:,}")
        text = data.decode()
        policy = Policy.model_validate(tomllib.loads(text))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"policy {path}: {error}", next_command=f"correct {path}") from error
    except ValidationError as error:
        problems = "; ".join(_problem(e["loc"], e["msg"]) for e in error.errors())
        raise UsageError(f"policy {path}: {problems}", next_command=f"correct {path}") from error
    if senseless := _senseless(policy):
        raise UsageError(f"policy {path}: {'; '.join(senseless)}", next_command=f"correct {path}")
    digest = hashlib.sha256(data).hexdigest()
    return policy, PolicyText(name=policy.name, version=policy.version, sha256=digest, text=text)


def _senseless(policy: Policy) -> list[str]:
    """What is typed well and would never judge what its author thinks that it does."""
    wrong = []
    for metric in policy.metrics:
        key = f"metrics.{metric.name}"
        if metric.role != "report" and metric.limit is None and metric.margin is None:
            wrong.append(f"`{key}`: a {metric.role} needs a `limit` or a `margin`")
        if metric.margin is not None and metric.kind in ABSOLUTE:
            wrong.append(f"`{key}.margin`: a {metric.kind} has no control to compare with, give a `limit`")
        if metric.relative and metric.margin is None:
            wrong.append(f"`{key}.relative`: says how `margin` is meant, and there is none")
    for step in policy.steps:
        if step.panel and step.kind != "shadow":
            wrong.append(f"`steps.{step.name}.panel`: edge cases are counted in a shadow step")
        if step.least_minutes > step.deadline_minutes:
            wrong.append(f"`steps.{step.name}.deadline_minutes`: over before `least_minutes` are")
        if step.prove and (step.kind == "shadow" or step.weight == 100):
            wrong.append(f"`steps.{step.name}.prove`: nothing to compare with in this step")
    return wrong


def _files(home: Path) -> Iterator[Path]:
    yield from sorted(BUILT_IN.glob("*.toml"))
    yield from sorted((home / "policies").glob("*.toml"))


def _age(version: str) -> tuple[tuple[int, int | str], ...]:
    """2 < 10, and numbers come before words."""
    return tuple((0, int(p)) if p.isdecimal() else (1, p) for p in version.replace("-", ".").split("."))


def _problem(at: tuple[int | str, ...], message: str) -> str:
    return f"`{'.'.join(map(str, at))}`: {message}" if at else message
