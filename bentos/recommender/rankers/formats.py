"""The formats that a ranker's file may have: one adapter each, and the only place to register one.

The manifest of a ranking bundle names what it holds, `params["ranker"]` and `params["format"]`; its file is the one
name with the other's suffix. A bundle from before that was said holds `dcn.onnx`. Another ranker or format is an
`ArtifactError`, so that the light ranker answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bentos.recommender.device import CPU
from bentos.recommender.models import RowScorer
from bentos.recommender.rankers.exported import open_exported
from bentos.recommender.rankers.lightgbm_text import open_lightgbm
from bentos.recommender.rankers.logistic import open_logistic
from bentos.recommender.rankers.onnx_graph import open_graph
from contracts.errors import ArtifactError
from contracts.serving import RANKERS, Ranker
from registry.artifacts import Manifest

# (file, columns of a row, threads) → the model; `ArtifactError` for whatever is not one.
Open = Callable[[Path, int, int], RowScorer]


@dataclass(frozen=True, slots=True)
class Format:
    suffix: str
    open: Open


FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", open_graph),
    "lightgbm": Format(".txt", open_lightgbm),
    "torch": Format(".pt2", open_exported),
    "numpy": Format(".npz", open_logistic),
}


@dataclass(frozen=True, slots=True)
class Named:
    """What a manifest says that its bundle holds."""

    ranker: Ranker
    format: str

    @property
    def file(self) -> str:
        return self.ranker + FORMATS[self.format].suffix


def named(manifest: Manifest) -> Named:
    """
    Raises:
        ArtifactError: a ranker or a format that this code does not know.
    """
    ranker, form = manifest.params.get("ranker", "dcn"), manifest.params.get("format", "onnx")
    known = next((name for name in RANKERS if name == ranker), None)
    if known is None:
        raise ArtifactError(f"the ranking bundle holds {ranker!r:.40}; this code knows {', '.join(RANKERS)}")
    if form not in list(FORMATS):
        raise ArtifactError(f"the ranking bundle is in format {form!r:.40}; this code reads {', '.join(FORMATS)}")
    return Named(known, form)


def open_ranker(
    path: Path, what: Named, width: int, threads: int, providers: Sequence[str] = (CPU,)
) -> tuple[RowScorer, str]:
    """The model, and the ONNX Runtime execution provider that it runs on.

    Only DCN-V2 asks for an accelerator: ONNX Runtime has no kernel for trees on CUDA.
    """
    if what == Named("dcn", "onnx"):
        graph = open_graph(path, width, threads, providers)
        return graph, graph.provider
    return FORMATS[what.format].open(path, width, threads), CPU
