"""A container image of a Bento, by stock `bentoml containerize` and whichever builder is there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from contracts import tracking
from contracts.errors import StreamRecError, Unreachable, UsageError
from registry.artifacts import Kind
from registry.bento_store import bentoml_home, stored_bento
from registry.lineage import pinned_uris

BACKENDS = ("docker", "podman", "buildah", "nerdctl")
CERTIFICATES = Path("/etc/ssl/certs")


def backend_problem(backend: str) -> str | None:
    """Why this builder cannot be used; None when it can."""
    if shutil.which(backend) is None:
        return f"{backend} is not installed"
    if backend == "buildah":  # has no daemon
        return None
    done = subprocess.run([backend, "info"], capture_output=True, text=True, timeout=60)
    if done.returncode == 0:
        return None
    words = (done.stderr or done.stdout).strip().splitlines()
    return f"{backend} does not answer: {words[-1] if words else 'no word why'}"


def choose_backend(wanted: str | None) -> str:
    """`wanted`, or the first builder that works.

    Raises:
        UsageError: not a builder that is known here.
        Unreachable: it, or none, is there; names the others.
    """
    if wanted is not None and wanted not in BACKENDS:
        raise UsageError(f"--backend {wanted}: known are {', '.join(BACKENDS)}")
    problems = []
    for backend in [wanted] if wanted else BACKENDS:
        problem = backend_problem(backend)
        if problem is None:
            return backend
        problems.append(problem)
    others = [backend for backend in BACKENDS if wanted and backend != wanted and backend_problem(backend) is None]
    raise Unreachable(
        "no image can be built: " + "; ".join(problems),
        next_command=(
            f"streamrec containerize TAG --backend {others[0]}"
            if others
            else "start Docker, or install a builder that needs no daemon: apt-get install buildah fuse-overlayfs crun"
        ),
    )


def command(
    tag: str,
    home: Path,
    *,
    backend: str,
    image: str,
    base_image: str | None = None,
    isolated: bool = False,
    options: Sequence[str] = (),
) -> list[str]:
    """The `bentoml containerize` command. base_image: stands in for the Dockerfile's own (buildah and podman).

    isolated: for a builder without user namespaces and bridges of its own (inside a container, a build machine):
    host network, and this machine's certificates.
    """
    bento = stored_bento(tag, home)
    words = [sys.executable, "-m", "bentoml", "containerize", bento.tag, "--backend", backend, "--image-tag", image]
    for key, value in _labels(bento.tag, bento.labels, pinned_uris(bento)).items():
        words += ["--label", f"{key}={value}"]
    if base_image:
        if backend not in ("buildah", "podman"):
            raise UsageError(f"--base-image works with buildah and podman; {backend} takes the one in the Dockerfile")
        words += ["--opt", f"from={base_image}"]
    if isolated:
        words += ["--opt", "network=host"]
        if backend in ("buildah", "podman") and CERTIFICATES.is_dir():
            # One volume only: BentoML 1.4.39 joins several with colons into one that means nothing.
            words += ["--opt", f"volume={CERTIFICATES}:{CERTIFICATES}:ro"]
    for option in options:
        words += ["--opt", option]
    return words


def containerize(
    tag: str,
    home: Path,
    *,
    backend: str,
    image: str | None = None,
    base_image: str | None = None,
    isolated: bool = False,
    options: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Build the image; returns its name. `say` gets the builder's output, line by line.

    Raises:
        StreamRecError: the builder failed; its last words are in the message.
    """
    bento = stored_bento(tag, home)
    name = image or bento.tag
    words = command(
        bento.tag, home, backend=backend, image=name, base_image=base_image, isolated=isolated, options=options
    )
    environment = {**os.environ, "BENTOML_HOME": str(bentoml_home(home)), **tracking.OFF}
    if isolated:
        environment.setdefault("BUILDAH_ISOLATION", "chroot")
        environment.setdefault("STORAGE_DRIVER", "vfs")
    last: list[str] = []
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            if line.strip():
                last = [*last[-14:], line.rstrip()]
                say(line.rstrip())
    # The command ends with 0 also when its builder failed: the image itself is the proof.
    if process.returncode != 0 or not image_exists(backend, name, environment):
        raise StreamRecError(f"{backend} could not build an image of {bento.tag}:\n  " + "\n  ".join(last))
    return name


def image_exists(backend: str, name: str, environment: dict[str, str] | None = None) -> bool:
    words = [backend, "inspect", "--type", "image", name]
    return subprocess.run(words, env=environment, capture_output=True).returncode == 0


def _labels(tag: str, found: Mapping[str, str], uris: Mapping[Kind, str]) -> dict[str, str]:
    wanted = ("git_commit", "feature_hash", "data_digest", "readiness", "device")
    return {
        "org.opencontainers.image.title": tag,
        **{f"streamrec.mlflow.{kind}": uri for kind, uri in uris.items() if uri},
        **{f"streamrec.{key}": found[key] for key in wanted if found.get(key)},
    }
