"""The funnel of the peers: the same artefacts, the same four sources, merge, ranker and rules, in plain NumPy.

Written as a team would that knows NumPy, FAISS and ONNX Runtime: everything that can be loaded or computed once is,
native work takes one thread, and there is no Python loop over candidates. It shares no code with the project, as each
peer runs in an environment of its own. What it leaves out makes it faster: no exposure or context records, no metrics,
no deadline, no breaker. A test holds its candidates and scores against the project's own funnel.

Shapes: N items, K candidates, F columns, D = 128.
"""

import json
import sqlite3
import zlib
from pathlib import Path

import faiss
import msgspec
import numpy as np
import onnxruntime as ort
import pyarrow as pa

SOURCES = ("two_tower", "graph", "content", "trending")
QUOTAS = {"two_tower": 200, "graph": 150, "content": 100, "trending": 50}
DEPTH, LARGE_DEPTH, LARGE = 4.0, 1.5, 20_000  # sources overlap, in a large catalogue less
TOTAL, SHORTLIST = 500, 50
MARGIN = 64  # how much further an index is read, as some of its items may not be shown
AGREEMENT, PROMOTED = 1.5, 1.2
WINDOW, CATEGORY_CAP, FRESH_FLOOR, CREATOR_FLOOR = 10, 3, 2, 1
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
HISTORY = 10
POSITIVE = {"click", "purchase"}
DEVICES = ("", "ios", "android", "web", "desktop", "mobile", "tablet", "tv")
COUNTS = ("pop_1d", "pop_3d", "pop_7d", "pop_14d", "pop_60d", "pop_total", "users_30d", "trending_score")
USER_DEFAULTS = {
    "user_avg_session_length_min": 12.0,
    "user_positives_30d": 0.0,
    "user_positives_total": 0.0,
    "user_active_days_30d": 0.0,
    "user_tenure_days": 0.0,
}
USER_TTL_US = 48 * HOUR_US
SESSION_TTL_US = 24 * HOUR_US


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def bucket(name, buckets):
    return zlib.crc32(name.encode()) % buckets + 1 if name else 0


def trend(short, long):
    return np.log((short + 0.1) / (long + 0.1))


class Items:
    """Catalogue and item features, as aligned columns."""

    def __init__(self, world, store):
        world = Path(world)
        with pa.memory_map(str(world / "retrieval" / "items.arrow")) as source:
            table = pa.ipc.open_file(source).read_all()
        vocab = json.loads((world / "retrieval" / "vocab.json").read_text())
        self.now_us = json.loads((world / "retrieval" / "manifest.json").read_text())["log_end_us"]
        self.ids = table["item_id"].to_pylist()
        self.row = {id_: row for row, id_ in enumerate(self.ids)}
        self.category = table["category"].to_numpy()
        self.creator = table["creator"].to_numpy()
        self.categories = {name: i for i, name in enumerate(vocab["category"])}
        self.promoted = np.array(table["is_promoted"].to_pylist())
        self.published_us = table["published_at"].cast(pa.int64()).to_numpy()
        self.fresh = (self.published_us > self.now_us - DAY_US) & (self.published_us <= self.now_us)
        self.not_shown = np.array(table["is_flagged"].to_pylist()) | (self.published_us > self.now_us)
        exposure = np.load(world / "retrieval" / "creator_exposure.npy")
        self.under_exposed = (self.creator >= 0) & (exposure < np.quantile(exposure, 0.5))[self.creator]
        self.embeddings = np.load(world / "retrieval" / "item_embeddings.npy", mmap_mode="r")
        self.graph = np.load(world / "retrieval" / "graph_items.npy", mmap_mode="r")
        self._columns(table, vocab, store)

    def _columns(self, table, vocab, store):
        """What the ranker reads of an item alone, float32 [N, 18] and [N, 2]."""
        with sqlite3.connect(f"file:{store}/online.db?mode=ro", uri=True) as db:
            snapshot = msgspec.msgpack.decode(db.execute("SELECT snapshot FROM item_snapshot").fetchone()[0])
        features = {name: np.frombuffer(data, "<f4") for name, (_, data) in snapshot["columns"].items()}
        price = table["price"].to_numpy()
        self.log_price = np.log1p(np.where(price > 0, price, np.nan)).astype(np.float32)
        age_d = np.maximum(self.now_us - self.published_us, 0) / DAY_US
        self.dense = np.column_stack(
            [
                *(np.log1p(features[f"item_{name}"]) for name in COUNTS),
                features["item_ctr_7d"],
                features["item_completion_rate_7d"],
                np.log1p(age_d),
                np.nan_to_num(self.log_price),
                np.isfinite(self.log_price),
                self.promoted,
                trend(features["item_pop_3d"], features["item_pop_14d"]),
                trend(features["item_pop_7d"], features["item_pop_60d"]),
                trend(features["item_pop_14d"], features["item_pop_total"]),
                np.log1p(np.bincount(self.category, features["item_pop_14d"], minlength=len(vocab["category"])))[
                    self.category
                ],
            ]
        ).astype(np.float32)
        categories = np.array([bucket(name, 512) for name in vocab["category"]], np.float32)
        creators = np.array([*(bucket(name, 1024) for name in vocab["creator"]), 0], np.float32)
        self.categorical = np.column_stack([categories[self.category], creators[self.creator]])
        counts = np.bincount(self.category, features["item_pop_60d"], minlength=len(categories))
        self.category_prior = ((counts + 1) / (counts.sum() + len(counts))).astype(np.float32)


class Users:
    """The online store: features, session and what a user has seen."""

    def __init__(self, world, store, items):
        folder = Path(world) / "retrieval"
        ids, rows = np.load(folder / "user_ids.npy"), np.load(folder / "user_rows.npy")
        self.row = {id_.decode(): int(row) for id_, row in zip(ids, rows)}  # noqa: B905 - the peers' own style
        self.seen_at = np.load(folder / "seen_indptr.npy")
        self.seen_items = np.load(folder / "seen_items.npy")
        self.items = items
        self.db = sqlite3.connect(f"file:{store}/online.db?mode=ro", uri=True, check_same_thread=False)
        self.db.execute("ATTACH ? AS events", (f"file:{store}/events.db?mode=ro",))

    def read(self, user_id):
        """A dict of plain values and arrays, as it also goes from one service to another."""
        now = self.items.now_us
        found = self.db.execute("SELECT features FROM users WHERE user_id = ?", (user_id,)).fetchone()
        stored = msgspec.msgpack.decode(found[0]) if found else {}
        features = dict(USER_DEFAULTS)
        for name in USER_DEFAULTS:
            if name in stored and now - stored[name][0] <= USER_TTL_US:
                features[name] = stored[name][1]
        preferences = {}
        if "user_category_preferences" in stored and now - stored["user_category_preferences"][0] <= USER_TTL_US:
            preferences = stored["user_category_preferences"][1]
        last = stored.get("user_last_10_interactions", (0, []))[1]
        streamed = self.db.execute("SELECT last FROM events.user_last WHERE user_id = ?", (user_id,)).fetchone()
        if streamed:
            both = {tuple(i) for i in (*last, *msgspec.msgpack.decode(streamed[0]))}
            last = sorted(both, key=lambda i: (i[2], i[0], i[1]), reverse=True)[:HISTORY]
        known = [(self.items.row[item], event, at) for item, event, at in last if item in self.items.row]
        row = self.row.get(user_id, -1)
        seen = self.seen_items[self.seen_at[row] : self.seen_at[row + 1]] if row >= 0 else np.empty(0, np.int32)
        met = np.array([item for item, event, _ in known if event in POSITIVE], np.int32)
        return {
            "row": row,
            "features": features,
            "preferences": preferences,
            "history": np.array([item for item, _, _ in known], np.int32),
            "ages_h": np.array([max(now - at, 0) / HOUR_US for _, _, at in known], np.float32),
            "seen": np.union1d(seen, met).astype(np.int32),
        }


class Retrieval:
    """Four sources and their union."""

    def __init__(self, world, items, quotas=QUOTAS, total=TOTAL):
        folder = Path(world) / "retrieval"
        self.items = items
        self.quotas, self.total = quotas, total
        depth = LARGE_DEPTH if len(items.ids) > LARGE else DEPTH
        self.reach = {name: round(depth * quota) for name, quota in quotas.items()}
        self.vocab = json.loads((folder / "vocab.json").read_text())["attributes"]
        self.tower = session(folder / "two_tower.onnx")
        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(str(folder / "items.faiss"))
        graph = folder / "graph.faiss"
        self.graph_index = faiss.read_index(str(graph)) if graph.exists() else None
        self.graph_users = np.load(folder / "graph_users.npy")
        self.content_users = np.load(folder / "content_users.npy")
        self.content_prior = np.load(folder / "content_prior.npy")
        self.content_items = np.load(folder / "content_items.npy")
        trending = np.load(folder / "trending.npy")
        self.trending = np.argsort(-trending, kind="stable").astype(np.int32)
        self.trending_scores = trending[self.trending]

    def candidates(self, user, context):
        """items int32 [K], retrieval [K], by_source [K, 4], brought [K, 4], vector [D]."""
        blocked = self.items.not_shown.copy()
        blocked[user["seen"]] = True
        vector = self._vector(user, context)
        found = {"two_tower": self._nearest(self.index, vector, blocked, self.reach["two_tower"])}
        if user["row"] >= 0:
            found["graph"] = self._graph(self.graph_users[user["row"]], blocked)
        share = self.content_users[user["row"]] if user["row"] >= 0 else self.content_prior
        scores = share[self.items.category] * self.content_items
        scores[blocked] = -np.inf
        best = self._best(scores, self.reach["content"])
        found["content"] = (best, scores[best])
        allowed = np.flatnonzero(~blocked[self.trending])[: self.reach["trending"]]
        found["trending"] = (self.trending[allowed], self.trending_scores[allowed])
        return {**self._merge(found), "vector": vector}

    def _vector(self, user, context):
        history = np.zeros((1, HISTORY), np.int64)
        ages = np.zeros((1, HISTORY), np.float32)
        n = len(user["history"])
        history[0, :n] = user["history"] + 1
        ages[0, :n] = user["ages_h"]
        said = [
            self.vocab[name].index(v) if (v := context.get(name, "")) in self.vocab[name] else 0 for name in self.vocab
        ]
        attributes = np.array([[user["row"] + 1, *said]], np.int64)
        inputs = {"history": history, "history_age_h": ages, "attributes": attributes}
        return self.tower.run(None, inputs)[0][0]

    def _nearest(self, index, vector, blocked, n):
        scores, found = index.search(vector[None, :], n + MARGIN)
        keep = (found[0] >= 0) & ~blocked[found[0]]
        return found[0][keep][:n].astype(np.int32), scores[0][keep][:n]

    def _graph(self, vector, blocked):
        if self.graph_index is not None:
            return self._nearest(self.graph_index, vector, blocked, self.reach["graph"])
        scores = self.items.graph @ vector
        scores[blocked] = -np.inf
        best = self._best(scores, self.reach["graph"])
        return best, scores[best]

    def _best(self, scores, n):
        n = min(n, len(scores) - 1)
        best = np.argpartition(-scores, n)[:n]
        best = best[np.isfinite(scores[best])]
        return best[np.lexsort((best, -scores[best]))].astype(np.int32)

    def _merge(self, found):
        """Scores are normalised a source and summed, more where sources agree; each source's quota is in."""
        names = list(found)
        items, at = np.unique(np.concatenate([found[name][0] for name in names]), return_inverse=True)
        by_source = np.zeros((len(items), len(SOURCES)), np.float32)
        brought = np.zeros((len(items), len(SOURCES)), bool)
        sure = np.zeros(len(items), bool)
        start = 0
        for name in names:
            rows, scores = found[name]
            here = at[start : start + len(rows)]
            start += len(rows)
            if not len(rows):
                continue
            low, high = scores.min(), scores.max()
            by_source[here, SOURCES.index(name)] = (scores - low) / (high - low) if high > low else 1.0
            brought[here, SOURCES.index(name)] = True
            sure[here[: self.quotas[name]]] = True
        score = by_source.sum(axis=1)
        score[brought.sum(axis=1) >= 2] *= AGREEMENT
        order = np.lexsort((-score, ~sure))[: self.total]
        order = order[np.lexsort((items[order], -score[order]))]
        return {
            "items": items[order].astype(np.int32),
            "retrieval": score[order],
            "by_source": by_source[order],
            "brought": brought[order],
        }


class Ranking:
    """DCN-V2 over the candidates; where it fails, the caller has `Fallback`."""

    def __init__(self, world, items):
        self.items = items
        self.graph_users = np.load(Path(world) / "retrieval" / "graph_users.npy")
        self.model = session(Path(world) / "ranking" / "dcn.onnx")

    def score(self, user, context, candidates):
        """float32 [K]."""
        return self.model.run(None, {"rows": self.rows(user, context, candidates)})[0].reshape(-1)

    def rows(self, user, context, candidates):
        """float32 [K, F]: columns of the item, of the pair, of the user; then the categorical ones."""
        catalogue, items, k = self.items, candidates["items"], len(candidates["items"])
        first_user, first_category = 56, 72
        out = np.zeros((k, 76), np.float32)
        out[:, :18] = catalogue.dense[items]
        out[:, 18:22] = candidates["by_source"]  # of the fifth source, which this world lacks, columns stay zero
        out[:, 23:27] = candidates["brought"]
        pair = out[:, 28:first_user]
        pair[:, 0] = candidates["retrieval"]
        pair[np.argsort(-candidates["retrieval"], kind="stable"), 1] = np.log1p(np.arange(k))
        pair[:, 2] = candidates["brought"].sum(axis=1)
        vectors, graph = catalogue.embeddings[items], catalogue.graph[items]
        pair[:, 3] = vectors @ candidates["vector"]
        norms = np.linalg.norm(graph, axis=1) + 1e-9
        if user["row"] >= 0:
            mine = self.graph_users[user["row"]]
            dot = graph @ mine
            pair[:, 4] = (dot - dot.mean()) / (dot.std() + 1e-6)
            pair[:, 5] = dot / (norms * (np.linalg.norm(mine) + 1e-9))
        share = np.zeros(len(catalogue.category_prior), np.float32)
        for name, value in user["preferences"].items():
            if name in catalogue.categories:
                share[catalogue.categories[name]] = value
        category = catalogue.category[items]
        pair[:, 6] = share[category]
        if share.sum() > 0:
            prior = catalogue.category_prior
            pair[:, 7] = np.log((share + 0.05 * prior) / (1.05 * prior))[category]
        history = user["history"]
        if len(history):
            self._with_history(pair, items, history, vectors, graph, norms, category)
        now = catalogue.now_us
        hour, weekday = 2 * np.pi * (now % DAY_US) / DAY_US, 2 * np.pi * ((now // DAY_US + 3) % 7) / 7
        out[:, first_user:first_category] = (
            *(np.log1p(max(value, 0.0)) for value in user["features"].values()),
            np.log1p(user["ages_h"][0] if len(history) else 24 * 365.0),
            len(history),
            np.log1p(len(user["seen"])),
            *(0.0, 0.0, 0.0, 0.0),  # of a history with moments, as the fifth source has it
            np.sin(hour),
            np.cos(hour),
            np.sin(weekday),
            np.cos(weekday),
        )
        out[:, first_category : first_category + 2] = catalogue.categorical[items]
        out[:, first_category + 2] = bucket(context.get("country", ""), 128)
        device = context.get("device", "").lower()
        out[:, first_category + 3] = DEVICES.index(device) if device in DEVICES else 0
        return np.nan_to_num(out)

    def _with_history(self, pair, items, history, vectors, graph, norms, category):
        catalogue = self.items
        paid = catalogue.log_price[history]
        paid = paid[np.isfinite(paid)]
        if len(paid):
            pair[:, 8] = np.nan_to_num(catalogue.log_price[items] - paid.mean())
            pair[:, 9] = np.abs(pair[:, 8])
        near = vectors @ catalogue.embeddings[history].T
        pair[:, 10], pair[:, 11] = near.max(axis=1), near.mean(axis=1)
        past = catalogue.graph[history]
        past = past / (np.linalg.norm(past, axis=1, keepdims=True) + 1e-9)
        near = (graph @ past.T) / norms[:, None]
        pair[:, 12], pair[:, 13] = near.max(axis=1), near.mean(axis=1)
        pair[:, 14] = np.bincount(catalogue.category[history], minlength=len(catalogue.category_prior))[category]
        creators = catalogue.creator[history]
        creators = creators[creators >= 0]
        pair[:, 15] = (catalogue.creator[items][:, None] == creators[None, :]).sum(axis=1)


class Fallback:
    """The logistic ranker, and popularity for when there are no candidates at all."""

    def __init__(self, world, items):
        folder = Path(world) / "fallback"
        self.items = items
        model = np.load(folder / "logistic.npz")
        self.weights = (model["weights"] / model["scale"]).astype(np.float32)
        self.bias = float(model["bias"] - model["mean"] @ (model["weights"] / model["scale"]))
        order = np.load(folder / "popularity.npy")
        self.popular = order[~items.not_shown[order]][:500]

    def score(self, rows):
        return 1 / (1 + np.exp(-(rows @ self.weights + self.bias)))


def slate(items, candidates, scores, k):
    """The answer's items: the 50 best, promoted ones lifted, then the rules on the first places, then k."""
    best = np.argsort(-scores, kind="stable")[:SHORTLIST]
    rows, scores = candidates["items"][best], scores[best]
    scores = np.where(items.promoted[rows], scores * PROMOTED, scores)
    order = np.argsort(-scores, kind="stable")
    chosen, counts = [], {}
    places = min(WINDOW, k, len(order))
    fresh = min(FRESH_FLOOR, int(items.fresh[rows].sum()))
    creator = min(CREATOR_FLOOR, int(items.under_exposed[rows].sum()))
    for i in order:
        if len(chosen) == places:
            break
        row = rows[i]
        category = int(items.category[row])
        left = places - len(chosen) - 1
        owed = max(0, fresh - bool(items.fresh[row])) + max(0, creator - bool(items.under_exposed[row]))
        if counts.get(category, 0) >= CATEGORY_CAP or owed > left:
            continue
        counts[category] = counts.get(category, 0) + 1
        fresh, creator = max(0, fresh - bool(items.fresh[row])), max(0, creator - bool(items.under_exposed[row]))
        chosen.append(int(i))
    taken = set(chosen)
    chosen += [int(i) for i in order if int(i) not in taken][: k - len(chosen)]
    return [
        {
            "item_id": items.ids[rows[i]],
            "score": round(float(scores[i]), 6),
            "position": place,
            "sources": [SOURCES[s] for s in np.flatnonzero(candidates["brought"][best[i]])],
        }
        for place, i in enumerate(chosen, start=1)
    ]
