"""May this Bento run where users are hidden by key? It carries the code that it was built with."""

from contracts.errors import Refused
from contracts.settings import Settings
from registry.bento_store import StoredBento

CODE = ("src", "contracts", "user_keys.py")  # of a Bento that can


def demand_hiding(bento: StoredBento, settings: Settings) -> None:
    """
    Raises:
        Refused: `user_keys` is set, and the Bento was built before there was such a setting: it would end at its start,
            and to leave the setting out would log users by name. Its models are fine: built anew they hide.
    """
    if settings.user_keys is None or bento.folder.joinpath(*CODE).exists():
        return
    from registry.lineage import pinned_uris  # brings MLflow, which no controller needs but for this

    pins = " ".join(f"--{kind} {uri}" for kind, uri in pinned_uris(bento).items() if uri)
    raise Refused(
        f"{bento.tag} was built before users could be hidden, and does not know the setting `user_keys`: build its"
        " models again and release that",
        next_command=f"streamrec build {pins}".strip(),
    )
