"""`release retire`: the end of a Bento's life. Refused for what anything still depends on; disk space comes back."""

import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import NotFound, Refused
from contracts.settings import Settings
from registry.access import authorise
from registry.bento_store import StoredBento, bentoml_home, bentos, stored_bento
from registry.control.store import Actor, Conflict, ControlStore
from registry.mlflow_client import locked
from registry.releases.result import Result
from registry.releases.values import ControlState

TRIES = 8
RETIRED = "retired"  # folder of the store for what waits for its removal


@dataclass(frozen=True, slots=True)
class _Aside:
    """A Bento that was renamed away: no command finds it any more, and it can still come back."""

    bento: StoredBento
    folder: Path

    def back(self) -> None:
        self.folder.rename(self.bento.folder)


def retire(
    store: ControlStore,
    settings: Settings,
    token: str | None,
    *,
    tags: Sequence[str] = (),
    before_us: int | None = None,
    now_us: int,
    dry_run: bool = False,
    reason: str = "",
) -> Result:
    """Remove Bentos by tag (one that is needed: all are refused), or all built before a moment (needed ones stay),
    with the models of the model store that no other Bento pins. Registered versions in MLflow stay: they are lineage.

    Raises:
        NotFound: no such Bento. Refused: something depends on one; names it.
    """
    subject = ", ".join(tags) or "old Bentos"
    actor = authorise(store, token, "admin", action="release.retire", subject=subject, now_us=now_us)
    try:
        chosen, kept = _choose(store.load(), settings.home, tags, before_us)
    except (NotFound, Refused) as error:
        if not dry_run:
            store.note(actor, "refused", subject, {"action": "release.retire", "reason": error.message}, now_us)
        raise
    rest = [bento for bento in bentos(settings.home) if bento not in chosen]
    folders = _only_theirs(chosen, rest)
    plan = [f"remove {bento.tag}, built {bento.created:%Y-%m-%d}" for bento in chosen]
    plan += [f"remove model {tag}, which no other Bento pins" for tag, _ in folders]
    plan += [f"keep {tag}: {why}" for tag, why in kept]
    freed = sum(map(_size, [bento.folder for bento in chosen] + [folder for _, folder in folders]))
    facts = {"retired": [b.tag for b in chosen], "models": [tag for tag, _ in folders], "freed_bytes": freed}
    if dry_run or not chosen:
        return Result(store.load(), None, "", tuple(plan) or ("nothing to retire",), False, facts)
    # Its tag and its reason are in the audit before anything is gone for good.
    state = _set_aside_and_commit(store, actor, settings.home, chosen, subject, {**facts, "reason": reason}, now_us)
    with locked(bentoml_home(settings.home) / "streamrec.lock"):
        # Once more, under the lock of `build`: a Bento built meanwhile may pin one of them.
        for _, folder in _only_theirs(chosen, bentos(settings.home)):
            shutil.rmtree(folder, ignore_errors=True)
            _latest(folder.parent)
        for bento in chosen:
            _latest(bento.folder.parent)
    sweep(settings.home)
    return Result(state, state.release, "streamrec release history", tuple(plan), True, facts)


def dependents(tag: str, state: ControlState) -> list[str]:
    """Why a Bento must stay."""
    release = state.release
    found = []
    if state.champion and state.champion.bento == tag:
        found.append("it is the champion")
    if state.previous and state.previous.bento == tag:
        found.append("a rollback goes back to it")
    if any(w.target.bento == tag for w in state.warm):
        found.append("it is kept warm")
    if release and release.active and release.candidate.bento == tag:
        found.append(f"it is the candidate of {release.id}")
    if release and release.active and release.champion and release.champion.bento == tag:
        found.append(f"a rollback of {release.id} goes back to it")
    return found


def sweep(home: Path) -> None:
    """Remove what was set aside, also by a command that was killed after its audit entry."""
    for folder in (home.resolve() / "bentoml" / RETIRED).glob("*"):
        shutil.rmtree(folder, ignore_errors=True)


def _choose(
    state: ControlState, home: Path, tags: Sequence[str], before_us: int | None
) -> tuple[list[StoredBento], list[tuple[str, str]]]:
    """(to be removed, those that stay and why)."""
    chosen = [stored_bento(tag, home) for tag in tags]
    if needed := [f"{b.tag}: {', '.join(why)}" for b in chosen if (why := dependents(b.tag, state))]:
        raise Refused(f"still needed: {'; '.join(needed)}", next_command="streamrec release status")
    kept = []
    for bento in bentos(home) if before_us is not None else ():
        if bento.created.timestamp() * 1e6 >= (before_us or 0) or bento in chosen:
            continue
        if why := dependents(bento.tag, state):
            kept.append((bento.tag, ", ".join(why)))
        else:
            chosen.append(bento)
    return list({bento.tag: bento for bento in chosen}.values()), kept


def _set_aside_and_commit(
    store: ControlStore,
    actor: Actor,
    home: Path,
    chosen: Iterable[StoredBento],
    subject: str,
    detail: dict[str, Any],
    now_us: int,
) -> ControlState:
    """Rename away, look once more, commit. A `start` of one of them that came between makes the commit a conflict, and
    one that comes later does not find it: no release can begin on a Bento that is going."""
    aside: list[_Aside] = []
    try:
        for bento in chosen:
            folder = bentoml_home(home) / RETIRED / f"{bento.folder.name}-{uuid.uuid4().hex[:6]}"
            folder.parent.mkdir(exist_ok=True)
            bento.folder.rename(folder)
            aside.append(_Aside(bento, folder))
        for _ in range(TRIES):
            state = store.load()
            for one in aside:
                if why := dependents(one.bento.tag, state):
                    raise Refused(f"{one.bento.tag} is needed since a moment ago: {', '.join(why)}")
            try:
                return store.commit(
                    state, state, actor=actor, action="release.retire", subject=subject, detail=detail, now_us=now_us
                )
            except Conflict:
                continue
        raise Refused("the control state keeps moving: nothing was removed")
    except BaseException:
        for one in aside:
            one.back()
        raise


def _only_theirs(chosen: Iterable[StoredBento], rest: Iterable[StoredBento]) -> list[tuple[str, Path]]:
    """Models of the store that no Bento of `rest` pins: (tag, folder)."""
    shared = {tag for bento in rest for tag, _ in bento.models.values()}
    theirs = {tag: folder for bento in chosen for tag, folder in bento.models.values()}
    return [(tag, folder) for tag, folder in sorted(theirs.items()) if tag not in shared]


def _latest(folder: Path) -> None:
    """BentoML's `latest` must not name what is gone: it names the newest that is left."""
    pointer = folder / "latest"
    left = [path for path in folder.glob("[!.]*/") if path.is_dir()]
    if pointer.exists() and not (folder / pointer.read_text().strip()).is_dir():
        if left:
            part = folder / "latest.part"
            part.write_text(max(left, key=lambda path: path.stat().st_mtime).name)
            part.replace(pointer)
        else:
            pointer.unlink()


def _size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
