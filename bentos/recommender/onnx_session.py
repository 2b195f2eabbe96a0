"""Opening ONNX Runtime sessions: one thread, no spinning, a clear error."""

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from contracts.errors import ArtifactError


def open_session(
    path: Path, *, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> ort.InferenceSession:
    """
    Raises:
        ArtifactError: the file is not a model that this runtime can load.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # the runtime raises a class of its own for each status code
        raise ArtifactError(f"{path} is not a model that can be loaded: {str(error).splitlines()[0]}") from error
