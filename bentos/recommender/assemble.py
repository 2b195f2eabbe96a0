"""From bundle folders to typed models. What is missing or corrupt becomes a problem with a name, not a failed start."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import faiss
import msgspec
import numpy as np
from numpy.typing import NDArray

from bentos.recommender.ann import NearestItems
from bentos.recommender.catalogue import catalogue_of_ids, open_catalogue, open_ids
from bentos.recommender.device import CPU
from bentos.recommender.models import FallbackModels, Models, RetrievalModels, RowScorer
from bentos.recommender.onnx_session import open_session
from bentos.recommender.rankers.dcn import FoldedRanker
from bentos.recommender.rankers.formats import named, open_ranker
from bentos.recommender.rankers.logistic import open_logistic
from contracts.catalogue import Catalogue
from contracts.dataset import DatasetConfig
from contracts.errors import ArtifactError
from contracts.serving import EMBEDDING_DIM
from features.item_item import ItemItem
from features.ranking import RowSchema, row_schema
from features.streaming import IMPRESSION
from features.two_tower_inputs import AttributeVocab
from registry.artifacts import FAST_RANKER, Bundle, Kind, Manifest, open_bundle, verify

T = TypeVar("T")
Problems = dict[str, str]
PARTS = ("sources", "ranker", "logistic")
SEEN_AT = "seen_at_us.npy"
NONE_DAMAGED: Mapping[Kind, frozenset[str]] = {}

__all__ = ["PARTS", "Models", "load_models"]


def load_models(
    folders: Mapping[Kind, Path | None],
    *,
    threads: int = 1,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    parts: Collection[str] = PARTS,
    damaged: Mapping[Kind, frozenset[str]] = NONE_DAMAGED,
) -> Models:
    """Load what is there. Never raises for a bundle that is missing, corrupt or does not fit: see `Models.problems`.

    parts: without `sources` the catalogue, the vectors that rows read, filters and popularity stay, but nothing can be
    retrieved here; without `ranker` (the ranking bundle's) or `logistic` no such ranker is loaded, and that is no
    problem.
    damaged: files by bundle that must not be used.
    """
    problems: Problems = {}
    faiss.omp_set_num_threads(threads)
    retrieval = _attempt("retrieval", problems, lambda: _open(folders, "retrieval", damaged))
    # The bundle says whose answers they are also where another process loads it, and tells what is wrong with it.
    of_ranking = problems if "ranker" in parts else {}
    ranking = _attempt("ranking", of_ranking, lambda: _open(folders, "ranking", damaged))
    ranked_by = None if ranking is None else _attempt("ranking", of_ranking, lambda: named(ranking.manifest).ranker)
    fallback = _attempt("fallback", problems, lambda: _open(folders, "fallback", damaged))

    catalogue = None
    models = None
    if retrieval is not None:
        catalogue = _attempt("retrieval", problems, lambda: open_catalogue(retrieval))
        if catalogue is not None:
            known = catalogue
            models = _attempt(
                "retrieval", problems, lambda: _retrieval(retrieval, known, problems, threads, "sources" in parts)
            )
    lists = None
    if fallback is not None:
        whole = catalogue  # None: only ids are known, those of the static slate
        loaded = _attempt("fallback", problems, lambda: _fallback(fallback, whole, retrieval))
        if loaded is not None:
            catalogue, lists = loaded
    if catalogue is None:
        catalogue = catalogue_of_ids([])
    if lists is None and models is not None and models.trending is not None:
        order = np.argsort(-models.trending, kind="stable").astype(np.int32)
        lists = FallbackModels(order, {})

    ranker, light, provider = None, None, ""
    if models is not None:
        fits = catalogue
        if ranking is not None and ranked_by is not None and "ranker" in parts:
            opened = _attempt("ranking", problems, lambda: _ranker(ranking, fits, problems, threads, providers))
            if opened is not None:
                ranker, provider = opened
        if fallback is not None and "logistic" in parts:
            light = _attempt("fallback.logistic", problems, lambda: _light(fallback, fits))

    clock = _clock([bundle.manifest for bundle in (retrieval, fallback, ranking) if bundle is not None])
    return Models(catalogue, models, ranker, light, lists, *clock, provider, ranked_by or "dcn", problems)


def _attempt(part: str, problems: Problems, load: Callable[[], T]) -> T | None:
    """`load()`, or None with the reason kept. Bad files raise whatever their readers raise."""
    try:
        return load()
    except ArtifactError as error:
        problems[part] = error.message
    except Exception as error:
        problems[part] = f"{type(error).__name__}: {error}"
    return None


def _open(folders: Mapping[Kind, Path | None], kind: Kind, damaged: Mapping[Kind, frozenset[str]]) -> Bundle:
    folder = folders.get(kind)
    if folder is None:
        raise ArtifactError(f"no {kind} bundle was given")
    return replace(open_bundle(folder, kind), damaged=damaged.get(kind, frozenset()))


def _clock(manifests: Sequence[Manifest]) -> tuple[Any, int]:
    return (manifests[0].clock, manifests[0].log_end_us) if manifests else ("wall", 0)


def _retrieval(
    bundle: Bundle, catalogue: Catalogue, problems: Problems, threads: int, with_sources: bool
) -> RetrievalModels:
    n, params = len(catalogue), bundle.manifest.params
    has_item_item = SEEN_AT in bundle.manifest.files
    users = open_ids(bundle, "user")

    def part(name: str, load: Callable[[], T]) -> T | None:
        return _attempt(f"retrieval.{name}", problems, load)

    def source(name: str, load: Callable[[], T]) -> T | None:
        return part(name, load) if with_sources else None

    embeddings = _array(bundle, "item_embeddings.npy", np.float32, (n, EMBEDDING_DIM))
    columns = params.get("item_features", [])
    table = part("item_features", lambda: _array(bundle, "item_features.npy", np.float32, (n, len(columns))))
    graph_items = part("graph", lambda: _array(bundle, "graph_items.npy", np.float32, (n, None)))
    graph_users = None
    if graph_items is not None:
        shape = (len(users), graph_items.shape[1])
        graph_users = part("graph", lambda: _array(bundle, "graph_users.npy", np.float32, shape))
    exposure_of = (len(catalogue.creators),)
    categories = len(catalogue.categories)
    positive = params.get("positive_events")
    index = source("two_tower", lambda: _index(bundle, "items.faiss"))
    nearest = source("two_tower", lambda: NearestItems(embeddings, index))
    graph_nearest = None
    if graph_items is not None:
        vectors = graph_items
        graph_nearest = source("graph", lambda: NearestItems(vectors, _optional_index(bundle, "graph.faiss")))
    return RetrievalModels(
        users=users,
        seen_indptr=_array(bundle, "seen_indptr.npy", np.int64, (len(users) + 1,)),
        seen_items=_array(bundle, "seen_items.npy", np.int32, (None,)),
        positive_events=None if positive is None else frozenset(positive),
        attributes=_attributes(bundle, len(users)),
        embeddings=embeddings,
        item_features={} if table is None else {name: table[:, i] for i, name in enumerate(columns)},
        trained_until_us=bundle.manifest.trained_until_us,
        meaning=part("meaning", lambda: _meaning(params)),
        creator_exposure=part(
            "creator_exposure", lambda: _array(bundle, "creator_exposure.npy", np.float32, exposure_of)
        ),
        two_tower=source(
            "two_tower", lambda: open_session(bundle.path("two_tower.onnx"), threads=threads, mapped=True)
        ),
        nearest=nearest,
        graph_users=graph_users,
        graph_items=graph_items,
        graph_nearest=graph_nearest,
        content_users=source(
            "content", lambda: _array(bundle, "content_users.npy", np.float32, (len(users), categories))
        ),
        content_prior=source("content", lambda: _array(bundle, "content_prior.npy", np.float32, (categories,))),
        content_items=source("content", lambda: _array(bundle, "content_items.npy", np.float32, (n,))),
        trending=source("trending", lambda: _array(bundle, "trending.npy", np.float32, (n,))),
        seen_at_us=part("item_item", lambda: _array(bundle, SEEN_AT, np.int64, (None,))) if has_item_item else None,
        item_item=part("item_item", lambda: _item_item(bundle, n)) if has_item_item else None,
        item_item_half_life_d=float(params.get("item_item_half_life_d", 0.0)),
        made_without=frozenset() if has_item_item else frozenset({"item_item"}),
    )


def _item_item(bundle: Bundle, n: int) -> ItemItem:
    """Rankers read it too, so that it is loaded also where nothing is retrieved."""
    indptr = _array(bundle, "item_item_indptr.npy", np.int64, (n + 1,))
    items = _array(bundle, "item_item_items.npy", np.int32, (None,))
    weights = _array(bundle, "item_item_weights.npy", np.float32, (len(items),))
    if indptr[0] != 0 or indptr[-1] != len(items):
        raise ArtifactError(f"{bundle.folder}: item-item weights of {len(items)} entries end at {indptr[-1]}")
    return ItemItem(indptr, items, weights)


def _meaning(params: Mapping[str, Any]) -> DatasetConfig | None:
    """What events mean, as the data set said when the models were trained. A bundle from before that was kept names
    its positive events: each weighs 1."""
    stored = params.get("meaning")
    if stored is None:
        events = params.get("positive_events") or []
        stored = {"positives": [{"event": event} for event in events], "impression_event": IMPRESSION}
    return DatasetConfig.model_validate({"name": "bundle", **stored}) if stored["positives"] else None


def _attributes(bundle: Bundle, users: int) -> AttributeVocab:
    names = bundle.manifest.params.get("attributes", [])
    values = bundle.json("vocab.json").get("attributes", {})
    stored = None
    if names and (bundle.folder / "user_attributes.npy").exists():
        stored = _array(bundle, "user_attributes.npy", np.int32, (users, len(names)))
    return AttributeVocab(names, values, stored)


def _fallback(
    bundle: Bundle, catalogue: Catalogue | None, retrieval: Bundle | None
) -> tuple[Catalogue, FallbackModels]:
    """Popularity over the catalogue; without one, the static slate is all that there is, and its ids the catalogue."""
    slate = bundle.json("slate.json")["item_ids"]
    if catalogue is None:
        return catalogue_of_ids(slate), FallbackModels(np.arange(len(slate), dtype=np.int32), {})
    if retrieval is not None and retrieval.manifest.catalogue_hash != bundle.manifest.catalogue_hash:
        raise ArtifactError(
            f"popularity is over catalogue {bundle.manifest.catalogue_hash[:12]}, "
            f"retrieval over {retrieval.manifest.catalogue_hash[:12]}"
        )
    n = len(catalogue)
    overall = _rows(_array(bundle, "popularity.npy", np.int32, (None,)), n)
    by_country = {
        country: _rows(np.asarray(rows, np.int32), n)
        for country, rows in bundle.json("popularity_by_country.json").items()
    }
    static = catalogue.index.lookup_many(slate)
    return catalogue, FallbackModels(overall if len(overall) else static[static >= 0], by_country)


def _rows(rows: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    if len(rows) and (rows.min() < 0 or rows.max() >= n):
        raise ArtifactError(f"popularity names item rows outside 0…{n - 1}")
    return rows


def _ranker(
    bundle: Bundle, catalogue: Catalogue, problems: Problems, threads: int, providers: Sequence[str]
) -> tuple[RowScorer, str]:
    """The fast graph on a CPU, the plain one elsewhere, for bundles that have no other, and when that is torn."""
    wrong = verify(bundle)  # small files: a ranker that scores nonsense is worse than none
    of_fast = [problem for problem in wrong if problem.startswith(FAST_RANKER + " ")]
    if len(wrong) > len(of_fast):
        raise ArtifactError(f"ranking bundle {bundle.folder}: " + "; ".join(wrong))
    schema = _check_schema(bundle, catalogue)
    what = named(bundle.manifest)
    if what.ranker == "dcn" and FAST_RANKER in bundle.manifest.files and providers[0] == CPU:
        fast = _attempt("ranking.fast", problems, lambda: _fast_ranker(bundle, of_fast, threads))
        if fast is not None:
            return fast, CPU
    return open_ranker(bundle.path(what.file), what, len(schema.columns), threads, providers)


def _fast_ranker(bundle: Bundle, wrong: Sequence[str], threads: int) -> FoldedRanker:
    if wrong:
        raise ArtifactError(f"ranking bundle {bundle.folder}: " + "; ".join(wrong))
    return FoldedRanker(open_session(bundle.path(FAST_RANKER), threads=threads))


def _light(bundle: Bundle, catalogue: Catalogue) -> RowScorer:
    schema = _check_schema(bundle, catalogue)
    return open_logistic(bundle.path("logistic.npz"), len(schema.columns))


def _check_schema(bundle: Bundle, catalogue: Catalogue) -> RowSchema:
    """
    Raises:
        ArtifactError: the model reads other columns than this code makes over this catalogue.
    """
    schema = msgspec.json.decode(bundle.path("schema.json").read_bytes(), type=RowSchema)
    ours = row_schema(catalogue)
    if schema.signature != ours.signature:
        raise ArtifactError(
            f"{bundle.folder} reads rows {schema.signature[:12]} ({len(schema.columns)} columns), "
            f"this code makes {ours.signature[:12]} ({len(ours.columns)})"
        )
    return schema


def _array(bundle: Bundle, name: str, dtype: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Memory-mapped, seen as a plain array (a memmap's own indexing costs a microsecond each time)."""
    path = bundle.path(name)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ArtifactError(f"{path} is not an array: {error}") from error
    if array.ndim != len(shape) or any(w not in (None, g) for w, g in zip(shape, array.shape, strict=True)):
        raise ArtifactError(f"{path} has shape {array.shape}, wanted {shape}")
    if array.dtype != dtype:
        array = array.astype(dtype)
    return np.asarray(array)


def _index(bundle: Bundle, name: str) -> Any:
    """Its vectors stay in the file's pages, which worker processes share: as fast as a copy, and nothing to read."""
    return faiss.read_index(str(bundle.path(name)), faiss.IO_FLAG_MMAP_IFC)


def _optional_index(bundle: Bundle, name: str) -> Any | None:
    return _index(bundle, name) if (bundle.folder / name).exists() else None
