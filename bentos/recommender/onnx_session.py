"""ONNX Runtime, imported here alone, and opening its sessions: one thread, no spinning, large tables mapped if asked, a
clear error.
"""

from collections.abc import Sequence
from pathlib import Path

from bentos.recommender.onnx_mapped import without_large_tables
from contracts import tracking
from contracts.errors import ArtifactError

tracking.off()
import onnxruntime as ort  # noqa: E402 - it reports home from its import on

__all__ = ["EXTERNAL_FOLDER", "open_session", "ort"]

EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


def open_session(
    path: Path, *, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",), mapped: bool = False
) -> ort.InferenceSession:
    """mapped: tables of over a megabyte are read from the file's own pages, for models that gather a few of their rows.

    Raises:
        ArtifactError: the file is not a model that this runtime can load.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        slim = without_large_tables(path) if mapped else None
        if slim is not None:
            options.add_session_config_entry(EXTERNAL_FOLDER, str(path.parent))
        return ort.InferenceSession(slim or str(path), options, providers=list(providers))
    except Exception as error:  # the runtime raises a class of its own for each status code
        raise ArtifactError(f"{path} is not a model that can be loaded: {str(error).splitlines()[0]}") from error
