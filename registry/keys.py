"""The secrets of a home: the key that routing tables are signed with, and the one a gateway shows to its Bentos.

    home/control/keys/routing.key    Ed25519, private: whoever may read it may order any routing
    home/control/keys/front.key      random; Bentos heed the headers of contracts/front.py from who knows it
    home/control/routing.pub         the public half, for gateways

All files are the owner's alone (mode 0600 in a folder of 0700), but the public one.
"""

import os
import secrets
from pathlib import Path

from contracts.errors import NotFound
from contracts.routing import PUBLIC_KEY
from contracts.settings import Settings
from contracts.signing import Signer


def control_folder(home: Path) -> Path:
    """`home/control`, made if need be."""
    folder = home.resolve() / "control"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def routing_signer(home: Path) -> Signer:
    """Made on the first call.

    Raises:
        ArtifactError: the file holds no key.
    """
    folder = control_folder(home)
    return Signer.open(_keys(folder) / "routing.key", folder / PUBLIC_KEY)


def existing_signer(home: Path) -> Signer:
    """
    Raises:
        NotFound: this home has no key: no gateway of it would believe a new one.
    """
    folder = home.resolve() / "control"
    if not (folder / "keys" / "routing.key").exists():
        raise NotFound(f"{folder / 'keys'} has no routing key", next_command="streamrec up")
    return routing_signer(home)


def front_key(settings: Settings) -> str:
    """The one that was set, else that of the home, made on the first call."""
    if settings.front_key:
        return settings.front_key
    path = _keys(control_folder(settings.home)) / "front.key"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(key := secrets.token_urlsafe(32))
    return key


def _keys(folder: Path) -> Path:
    keys = folder / "keys"
    keys.mkdir(exist_ok=True, mode=0o700)
    return keys
