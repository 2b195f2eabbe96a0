"""`streamrec build` and `streamrec containerize`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import UsageError

if TYPE_CHECKING:
    from contracts.settings import Settings
    from registry.artifacts import Kind
    from registry.builds import Plan

Uri = Annotated[str | None, typer.Option(metavar="URI", help="models:/NAME/N or NAME@ALIAS [default: the newest run]")]


class Device(StrEnum):
    cpu = "cpu"
    gpu = "gpu"


class Service(StrEnum):
    recommender = "recommender"
    gateway = "gateway"


@errors_end_well
def build(
    retrieval: Uri = None,
    ranking: Uri = None,
    fallback: Uri = None,
    device: Annotated[Device, typer.Option(help="What the Bento's image and its ranker run on.")] = Device.cpu,
    service: Annotated[Service, typer.Option(help="What to build.")] = Service.recommender,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    home: Annotated[Path | None, typer.Option(help="STREAMREC_HOME")] = None,
    as_json: Json = False,
) -> None:
    """Pin three model versions, check that they fit one another and this code, and make a Bento of them.

    Example: `streamrec build --ranking streamrec-ranking@champion`

    `--service gateway` makes the Bento of the gateway, which has no models; `up` does that by itself.
    """
    from contracts.settings import load_settings
    from registry.builds import build as make
    from registry.builds import make_plan
    from registry.models import Registry

    settings = load_settings({"home": home})
    if service is Service.gateway:
        if any((retrieval, ranking, fallback)) or device is not Device.cpu:
            raise UsageError("a gateway has no models and no device of its own")
        _build_gateway(settings, dry_run=dry_run, as_json=as_json)
        return
    wanted: dict[Kind, str | None] = {"retrieval": retrieval, "ranking": ranking, "fallback": fallback}
    pins = {kind: uri for kind, uri in wanted.items() if uri is not None}
    with err.status("resolving the pins") as status:
        plan = make_plan(Registry.open(settings), pins, device.value, say=status.update)
    if not as_json:
        _print_plan(plan)
    if dry_run:
        if as_json:
            emit({"tag": None, "dry_run": True, **_document(plan)}, as_json=True)
        return
    with err.status("building") as status:
        bento = make(plan, settings.home, say=status.update)
    emit(
        {"tag": bento.tag, **_document(plan), "folder": str(bento.folder), "services": list(bento.services)},
        as_json=as_json,
        human=lambda: out.print(f"[bold green]built[/bold green] {bento.tag}\n  next: streamrec serve {bento.tag}"),
    )


@errors_end_well
def containerize(
    tag: Annotated[str, typer.Argument(metavar="TAG", help="A Bento, or `latest`.")],
    backend: Annotated[
        str | None, typer.Option(help="docker, podman, buildah or nerdctl [default: the first that works]")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Name of the image [default: the Bento's tag]")] = None,
    base_image: Annotated[
        str | None, typer.Option(help="In place of the Dockerfile's base image (buildah, podman).")
    ] = None,
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Host network, this machine's certificates; chroot and vfs.")
    ] = False,
    opt: Annotated[list[str] | None, typer.Option(help="Passed on to the builder, as KEY=VALUE.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command and stop.")] = False,
    home: Annotated[Path | None, typer.Option(help="STREAMREC_HOME")] = None,
    as_json: Json = False,
) -> None:
    """Make a container image of a Bento; its labels name the MLflow versions. The image runs as a user without rights.

    Example: `streamrec containerize latest --backend buildah`

    Where there is no container registry: `deploy/image/base.sh` makes a base image from Debian's packages.
    """
    import shlex

    from contracts.settings import load_settings
    from registry import images
    from registry.bento_store import stored_bento

    settings = load_settings({"home": home})
    bento = stored_bento(tag, settings.home)
    chosen = (backend or "docker") if dry_run else images.choose_backend(backend)
    how: dict[str, Any] = {"base_image": base_image, "isolated": isolated, "options": opt or []}
    words = images.command(bento.tag, settings.home, backend=chosen, image=image or bento.tag, **how)
    if not as_json:
        err.print(f"BENTOML_HOME={settings.home.resolve() / 'bentoml'} {shlex.join(words)}", soft_wrap=True)
    if dry_run:
        emit({"image": None, "dry_run": True, "command": words}, as_json=as_json, human=lambda: None)
        return
    with err.status("building the image") as status:
        name = images.containerize(
            bento.tag, settings.home, backend=chosen, image=image, say=lambda line: status.update(line[:120]), **how
        )
    emit({"image": name, "tag": bento.tag, "backend": chosen}, as_json=as_json)


def _build_gateway(settings: "Settings", *, dry_run: bool, as_json: bool) -> None:
    from registry.builds import build_gateway
    from registry.environment import code_state

    code = code_state()
    document: dict[str, Any] = {"tag": None, "models": {}, "git_commit": code.commit, "git_dirty": code.dirty}
    if dry_run:
        emit({**document, "dry_run": True}, as_json=as_json)
        return
    with err.status("building the gateway") as status:
        bento = build_gateway(settings.home, say=status.update)
    document |= {"tag": bento.tag, "feature_hash": bento.labels["feature_hash"], "folder": str(bento.folder)}
    emit(
        document,
        as_json=as_json,
        human=lambda: out.print(f"[bold green]built[/bold green] {bento.tag}\n  next: streamrec up"),
    )


def register(app: typer.Typer) -> None:
    """Add this file's commands to the root."""
    app.command()(build)
    app.command()(containerize)


def _document(plan: "Plan") -> dict[str, Any]:
    return {
        "models": {kind: version.uri for kind, version in plan.versions.items()},
        "git_commit": plan.code.commit,
        "git_dirty": plan.code.dirty,
        "feature_hash": plan.feature_hash,
        "readiness": plan.readiness,
        "checklist": dict(plan.checklist),
        "device": plan.device,
    }


def _print_plan(plan: "Plan") -> None:
    table(
        "build",
        ["", "version", "run", "aliases", "content"],
        (
            [kind, v.uri, v.run_id[:8], ", ".join(v.aliases), plan.model_tags[kind].rpartition("-")[2]]
            for kind, v in plan.versions.items()
        ),
    )
    dirty = " with changes" if plan.code.dirty else ""
    out.print(f"code {plan.code.commit[:12]}{dirty} · features {plan.feature_hash[:12]} · device {plan.device}")
    out.print(f"readiness [bold]{plan.readiness}[/bold]")
    out.print("  " + " · ".join(f"{item} {verdict}" for item, verdict in plan.checklist.items()), soft_wrap=True)
