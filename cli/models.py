"""`streamrec models`: what is registered, where it came from, and whether it is still whole."""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, emit, err, errors_end_well, out, table

if TYPE_CHECKING:
    from rich.tree import Tree

    from registry.lineage import Node
    from registry.models import Registry
    from registry.versions import ModelVersion

app = typer.Typer(no_args_is_help=True)

Home = Annotated[Path | None, typer.Option(help="STREAMREC_HOME")]


@app.command("list")
@errors_end_well
def list_(home: Home = None, as_json: Json = False) -> None:
    """Every registered version, newest first.

    Example: `streamrec models list`
    """
    from registry.artifacts import KINDS

    registry, _ = _open(home)
    versions = [version for kind in KINDS for version in registry.versions(kind)]
    emit(
        {"models": [_document(version) for version in versions]},
        as_json=as_json,
        human=lambda: table(
            "registered models",
            ["version", "aliases", "readiness", "ndcg@10", "trained until"],
            (
                [
                    f"{version.name}/{version.number}",
                    ", ".join(version.aliases),
                    version.tags.get("readiness", "inconclusive"),
                    _metrics(version).get("ndcg@10"),
                    _day(version.tags.get("trained_until_us")),
                ]
                for version in versions
            ),
        ),
    )


@app.command()
@errors_end_well
def show(
    reference: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="or models:/NAME/N")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """One version: lineage, metrics, framing and every check of its evidence.

    Example: `streamrec models show streamrec-ranking@champion`
    """
    from registry.registration import FRAMING_TAG

    registry, _ = _open(home)
    version = registry.resolve(reference)
    evidence = registry.evidence(version)
    frame = json.loads(version.tags.get(FRAMING_TAG) or "{}")
    document = _document(version) | {"framing": frame, "evidence": evidence.model_dump() if evidence else None}

    def human() -> None:
        out.print(f"[bold]{version.uri}[/bold]  {', '.join(version.aliases)}")
        figures = ("evaluation", "baselines", FRAMING_TAG)
        table("lineage", ["", ""], sorted((k, v) for k, v in version.tags.items() if v and k not in figures))
        _print_metrics(version)
        if frame:
            table("framing", ["", ""], ([name, _words(value)] for name, value in frame.items()))
        if evidence is None:
            out.print("no evidence")
            return
        table(
            f"evidence: {evidence.readiness}",
            ["check", "verdict", "detail", "command"],
            ([c.name, c.verdict, c.detail, c.command] for c in evidence.checks),
        )

    emit(document, as_json=as_json, human=human)


@app.command()
@errors_end_well
def lineage(
    reference: Annotated[str, typer.Argument(metavar="BENTO-OR-MODEL", help="A Bento's tag, `latest`, or a model.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Walk back from a Bento or a model to the runs, the data and the code that made it.

    Example: `streamrec models lineage latest`
    """
    from registry.lineage import lineage as walk

    registry, settings = _open(home)
    tree = walk(reference, registry, settings)
    emit(tree.document(), as_json=as_json, human=lambda: out.print(_tree(tree)))


@app.command()
@errors_end_well
def verify(
    reference: Annotated[
        str | None, typer.Argument(metavar="[BENTO-OR-MODEL]", help="[default: every registered version]")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Read every file again: checksums, evidence, and whether the models that belong together fit.

    Example: `streamrec models verify latest`
    """
    from registry.artifacts import KINDS
    from registry.bento_store import stored_bento
    from registry.lineage import as_model
    from registry.verification import verify_bento, verify_versions

    registry, settings = _open(home)
    with err.status("reading every file"):
        model = as_model(reference) if reference else None
        if model is not None:
            findings = verify_versions(registry, [registry.resolve(model)])
        elif reference:
            findings = verify_bento(stored_bento(reference, settings.home))
        else:
            findings = verify_versions(registry, [v for kind in KINDS for v in registry.versions(kind)])
    bad = [finding for finding in findings if finding.problems]
    emit(
        {"verdict": "fail" if bad else "pass", "findings": {f.name: list(f.problems) for f in findings}},
        as_json=as_json,
        human=lambda: table(
            "verified", ["", "verdict"], ([f.name, "; ".join(f.problems) or "whole"] for f in findings)
        ),
    )
    if bad:
        raise typer.Exit(1)


@app.command()
@errors_end_well
def check(
    reference: Annotated[str, typer.Argument(metavar="BENTO-OR-MODEL", help="A Bento's tag, `latest`, or a model.")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Add to the evidence of three models that serve together what needs no training: files, latency, way back, person.

    Example: `streamrec models check latest`
    """
    from contracts.quality import QualityPolicy
    from registry.cards.files import write_cards
    from registry.lineage import trio
    from training.release_checks import declared, release_checks

    registry, settings = _open(home)
    versions = trio(reference, registry, settings)
    quality = QualityPolicy.read(settings.quality)
    with err.status("measuring"):
        bundles = {kind: registry.bundle(version) for kind, version in versions.items()}
        found = release_checks(registry, bundles, quality, declared(versions), versions, settings.budgets)
    documents = {version.uri: registry.add_checks(version, found[kind]) for kind, version in versions.items()}
    write_cards(versions.values(), registry, settings)
    emit(
        {
            "readiness": {uri: evidence.readiness for uri, evidence in documents.items()},
            "checks": {version.uri: [c.model_dump() for c in found[kind]] for kind, version in versions.items()},
        },
        as_json=as_json,
        human=lambda: table(
            "checked",
            ["model", "check", "verdict", "detail"],
            ([v.uri, c.name, c.verdict, c.detail] for kind, v in versions.items() for c in found[kind]),
        ),
    )


@app.command()
@errors_end_well
def card(
    reference: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="or models:/NAME/N")],
    html: Annotated[bool, typer.Option("--html", help="As one HTML page [default: Markdown]")] = False,
    out_file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="[default: standard output]")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """The model card: use, framing, data, figures, slices, limits, checks, lineage, and who is called.

    Example: `streamrec models card streamrec-ranking@champion --html --out card.html`
    """
    from registry.cards.files import card as made
    from registry.cards.html import html as as_html
    from registry.cards.markdown import markdown

    registry, settings = _open(home)
    version = registry.resolve(reference)
    found = made(version, registry, settings)
    text = as_html(found) if html else markdown(found)
    if out_file is not None:
        out_file.write_text(text)
    document = {
        "uri": version.uri,
        "format": "html" if html else "markdown",
        "file": str(out_file) if out_file else None,
    }
    if as_json:
        emit(document | ({} if out_file else {"text": text}), as_json=True)
    elif out_file is None:
        sys.stdout.write(text)
    else:
        out.print(f"{version.uri}: {out_file}", soft_wrap=True)


def _open(home: Path | None) -> "tuple[Registry, Any]":
    from contracts.settings import load_settings
    from registry.models import Registry

    settings = load_settings({"home": home})
    return Registry.open(settings), settings


def _document(version: "ModelVersion") -> dict[str, Any]:
    return {
        "uri": version.uri,
        "name": version.name,
        "version": version.number,
        "aliases": list(version.aliases),
        "run_id": version.run_id,
        "readiness": version.tags.get("readiness", "inconclusive"),
        "metrics": _metrics(version),
        "tags": dict(version.tags),
    }


def _metrics(version: "ModelVersion") -> Mapping[str, float]:
    return {name: round(value, 5) for name, value in json.loads(version.tags.get("evaluation") or "{}").items()}


def _print_metrics(version: "ModelVersion") -> None:
    """The run and the baselines beside it, in the figures that a release is judged by; `--json` has all of them."""
    rows = {"this run": _metrics(version), **json.loads(version.tags.get("baselines") or "{}")}
    names = [name for name in ("ndcg@10", "recall@10", "hit@10", "coverage") if name in rows["this run"]]
    table("metrics", ["", *names], ([who, *(_figure(m.get(name)) for name in names)] for who, m in rows.items()))


def _words(value: Any) -> str:
    """One entry of a framing."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:g}" for name, number in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _day(us: "str | int | None") -> str:
    return datetime.fromtimestamp(int(us) / 1e6, UTC).strftime("%Y-%m-%d") if us else ""


def _evaluation(text: str) -> str:
    """The two figures that everybody asks for."""
    found = json.loads(text or "{}")
    return ", ".join(f"{name} {found[name]:.4f}" for name in ("ndcg@10", "recall@500") if name in found)


def _framing(text: str) -> str:
    """What is predicted, how far ahead and how quickly; `models show` has the rest."""
    frame = json.loads(text or "{}")
    return f"{_words(frame['target'])}; {frame['horizon']}; {frame['budget_ms']:g} ms" if frame else ""


def _tree(node: "Node", parent: "Tree | None" = None, seen: set[str] | None = None) -> "Tree":
    """A run that several models share is spelt out once."""
    from rich.markup import escape
    from rich.tree import Tree

    seen = set() if seen is None else seen
    again = node.kind == "run" and node.name in seen
    label = f"[bold]{node.kind}[/bold] {escape(node.name)}" + (" (as above)" if again else "")
    if not again:
        facts = {**node.facts, "evaluation": _evaluation(node.facts.get("evaluation", ""))}
        facts["framing"] = _framing(node.facts.get("framing", ""))
        label += "".join(f"\n  [dim]{key}[/dim] {escape(value)}" for key, value in facts.items() if value)
    branch = Tree(label) if parent is None else parent.add(label)
    if not again:
        seen.add(node.name)
        for child in node.children:
            _tree(child, branch, seen)
    return branch
