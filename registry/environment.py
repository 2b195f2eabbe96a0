"""What made a model besides its data: the code and the installed packages."""

import functools
import hashlib
import platform
import subprocess
import tarfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = ("bentos", "cli", "contracts", "features", "monitoring", "registry", "training")
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CodeState:
    """commit: 40 hex digits, or `unknown` without git. dirty: the working tree is not that commit (also without git).

    digest: SHA-256 over the first-party sources, which names the code even when no commit does.
    """

    commit: str
    dirty: bool
    digest: str


def code_root() -> Path:
    """The folder that holds the first-party packages: a checkout, a Bento's `src/` or site-packages."""
    return Path(__file__).resolve().parents[1]


def code_state(root: Path | None = None) -> CodeState:
    root = root or code_root()
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain")
    return CodeState(commit or UNKNOWN, commit is None or changes is None or changes != "", _digest(root))


@functools.cache
def environment_lock() -> str:
    """Python, platform and every installed distribution, one `name==version` a line, sorted."""
    packages = {(d.metadata["Name"] or "").lower(): d.version for d in metadata.distributions()}
    lines = [f"{name}=={version}" for name, version in sorted(packages.items()) if name]
    return "\n".join([f"# Python {platform.python_version()} on {platform.platform()}", *lines, ""])


def archive_sources(out: Path, root: Path | None = None) -> Path:
    """Write the first-party sources as `.tar.gz`: kept with a run whose code no commit names."""
    root = root or code_root()
    with tarfile.open(out, "w:gz", compresslevel=3) as tar:
        for path in _sources(root):
            tar.add(path, arcname=str(path.relative_to(root)))
    return out


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sources(root: Path) -> list[Path]:
    return sorted(
        path
        for package in PACKAGES
        for suffix in ("*.py", "*.toml")
        for path in (root / package).rglob(suffix)
        if "__pycache__" not in path.parts
    )


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in _sources(root):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _git(root: Path, *words: str) -> str | None:
    """Output of a git command on the repository that has `root` as its top; None when there is none."""
    if not (root / ".git").exists():  # site-packages inside somebody else's repository is not that repository's code
        return None
    command = ["git", "-c", "safe.directory=*", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
