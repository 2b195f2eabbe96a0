"""Policies are found, typed, hashed, and refused by key."""

import hashlib
from pathlib import Path

import pytest

from contracts.errors import NotFound, UsageError
from registry.releases.catalogue import BUILT_IN, policies, read_policy
from tests.unit.registry.releases.given import NOWHERE

SMALL = """
name = "mine"
version = "{version}"
[[metrics]]
name = "errors"
kind = "error_rate"
direction = "lower"
limit = 0.01
[[steps]]
kind = "canary"
weight = 5
metrics = ["errors"]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    return tmp_path


def write(home: Path, text: str, file: str = "mine.toml") -> None:
    (home / "policies" / file).write_text(text)


@pytest.mark.parametrize("name", ["default", "fast", "rules", "ab", "watched"])
def test_built_in_policies_read_and_carry_the_hash_of_their_text(name: str) -> None:
    policy, text = read_policy(name, NOWHERE)
    data = (BUILT_IN / f"{name}.toml").read_bytes()
    assert (policy.name, text.label) == (name, f"{name}@1")
    assert text.sha256 == hashlib.sha256(data).hexdigest()
    assert text.text.encode() == data
    assert policy.steps[-1].weight == 100
    assert sum(policy.alpha_of(m) for m in policy.metrics if m.critical) == pytest.approx(0.02)
    assert policy.alpha_of(policy.metric("ctr")) == pytest.approx(0.008, rel=1e-4)


def test_watched_is_default_with_the_watch_s_word_on_the_candidate_from_25_percent_on() -> None:
    default, watched = (read_policy(name, NOWHERE)[0] for name in ("default", "watched"))
    more = [m for m in watched.metrics if m.kind == "watch"]
    assert [(m.name, m.signals, m.limit) for m in more] == [
        ("skewed", ("skew.whole",), 0),
        ("drifted", ("drift.severity",), 0),
    ]
    assert tuple(m for m in watched.metrics if m not in more) == default.metrics
    added = [set(w.metrics) - set(d.metrics) for w, d in zip(watched.steps, default.steps, strict=True)]
    assert [bool(names) for names in added] == [False, False, False, True, True, False]
    assert all(names in (set(), {"skewed", "drifted"}) for names in added)
    kept = [w.model_copy(update={"metrics": d.metrics}) for w, d in zip(watched.steps, default.steps, strict=True)]
    assert kept == list(default.steps)


def test_the_default_policy_is_the_shadow_gate_and_the_ramp_of_the_design() -> None:
    policy, _ = read_policy("default@1", NOWHERE)
    shadow, *ramp = policy.steps
    assert (shadow.kind, shadow.least_samples) == ("shadow", 10_000)
    assert [s.weight for s in ramp] == [1, 5, 25, 50, 100]
    assert [s.weight for s in ramp if s.prove] == [50]
    limits = {m.name: (m.limit, m.limit_ms) for m in policy.metrics}
    assert limits["shadow_error_rate"] == (0.001, None)
    assert limits["shadow_latency_over"] == (0.01, 100)
    assert limits["score_correlation"] == (0.5, None)
    assert set(shadow.panel) == {"missing_features", "new_user", "new_items"}


def test_a_name_alone_is_its_newest_version(home: Path) -> None:
    for version in ("2", "10", "9"):
        write(home, SMALL.format(version=version), f"mine-{version}.toml")
    assert read_policy("mine", home)[1].version == "10"
    assert read_policy("mine@9", home)[1].version == "9"
    assert [t.label for t in policies(home).texts if t.name == "mine"] == ["mine@2", "mine@9", "mine@10"]


def test_two_texts_of_one_version_are_an_error_and_a_copy_is_not(home: Path) -> None:
    write(home, SMALL.format(version="1"))
    write(home, SMALL.format(version="1"), "copy.toml")
    assert read_policy("mine@1", home)[1].label == "mine@1"
    write(home, SMALL.format(version="1") + "# edited\n", "other.toml")
    with pytest.raises(UsageError, match="different texts"):
        read_policy("mine@1", home)
    assert "another text" in policies(home).problems[0]


def test_an_unknown_policy_names_those_that_are_there(home: Path) -> None:
    for label in ("nobody", "default@7", "", "@", "../default"):
        with pytest.raises(NotFound, match="default@1"):
            read_policy(label, home)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "mine"', 'name = "mine"\ncolour = "red"', "colour"),
        ("limit = 0.01", "limit = 0.01\nbound = 1", r"metrics.0.bound"),
        ('kind = "error_rate"', 'kind = "happiness"', r"metrics.0.kind"),
        ('metrics = ["errors"]', 'metrics = ["errors", "speed"]', "unknown metrics: speed"),
        ("weight = 5", "weight = 101", r"steps.0.weight"),
        ("weight = 5", "weight = 60", "over the split"),
        ("weight = 5", "weight = nan", r"steps.0.weight"),
        ("limit = 0.01", "", "needs a `limit` or a `margin`"),
        ("limit = 0.01", "limit = 0.01\nrelative = true", "relative"),
        ("weight = 5", "weight = 5\nleast_minutes = 9\ndeadline_minutes = 8", "deadline_minutes"),
        ("weight = 5", "weight = 100\nprove = true", "prove"),
        ("[[steps]]", "[[steps", "mine.toml"),
        ('version = "{version}"', "", "version"),
    ],
)
def test_a_policy_that_is_off_is_refused_by_key(home: Path, old: str, new: str, words: str) -> None:
    write(home, SMALL.replace(old, new).replace("{version}", "1"))
    with pytest.raises(UsageError, match=words) as error:
        read_policy("mine", home)
    assert error.value.next_command
    assert read_policy("default", home)[1].name == "default"  # the others can still be used


def test_a_file_that_is_no_text_is_a_problem_and_not_a_crash(home: Path) -> None:
    (home / "policies" / "a.toml").write_bytes(b"\xff\xfe\x00")
    (home / "policies" / "b.toml").mkdir()
    (home / "policies" / "c.toml").write_bytes(b"#" * (2 << 20))
    listing = policies(home)
    assert len(listing.problems) == 3
    assert len(listing.texts) == 5
