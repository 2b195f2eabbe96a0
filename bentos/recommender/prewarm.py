"""What is done before `/readyz`, so that the first requests are like all others: the files of the bundles are being
read ahead, and the paths that most requests take have been taken, with the users who come most.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from bentos.recommender.funnel import Funnel
from bentos.recommender.models import Models
from bentos.recommender.request_ids import new_request_id
from bentos.recommender.types import Query
from contracts.errors import StreamRecError
from features.online.base import OnlineStore
from registry.artifacts import Kind

HOT_USERS = 64
AT_MOST_S = 1.5  # of a start's 5 s
EACH_S = 0.5


def read_ahead(folders: Mapping[Kind, Path | None]) -> None:
    """Ask the system for the bundles' files, in the background: mapped pages that are not in memory cost a request a
    read from disk each.
    """
    files = [file for folder in folders.values() if folder is not None for file in sorted(folder.glob("*"))]
    threading.Thread(target=_ask_for, args=(files,), name="read-ahead", daemon=True).start()


def hot_users(models: Models, n: int = HOT_USERS) -> list[str]:
    """Those with the most items in training, most first: of the users whom the models know, likely to come."""
    if models.retrieval is None or not len(models.retrieval.users):
        return []
    seen = np.diff(models.retrieval.seen_indptr)
    return models.retrieval.users.ids_of(np.argsort(-seen, kind="stable")[:n])


def queries(models: Models, each_s: float = EACH_S) -> Iterator[Query]:
    """Nobody's requests: a new user of each country that has a popularity list, then the hot users. A deadline starts
    when the query is taken.
    """
    countries: list[Mapping[str, str]] = [{}]
    if models.fallback is not None:
        countries += [{"country": country} for country in models.fallback.by_country]
    asked = [("", context) for context in countries]
    asked += [(user, countries[n % len(countries)]) for n, user in enumerate(hot_users(models))]
    for user, context in asked:
        yield Query(
            new_request_id(), user, 20, models.now_us(), time.perf_counter() + each_s, context=context, shadow=True
        )


async def prewarm(funnel: Funnel, store: OnlineStore, asked: Iterable[Query], at_most_s: float = AT_MOST_S) -> int:
    """How many were answered, on the way that requests take and on the last rung. Never longer than `at_most_s`."""
    answered = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            for query in asked:
                with contextlib.suppress(StreamRecError):
                    await funnel.recommend(query, store)
                    answered += 1
                    if not query.user_id:
                        funnel.popularity(query)
    return answered


def _ask_for(files: Iterable[Path]) -> None:
    if not hasattr(os, "posix_fadvise"):
        return
    for file in files:
        with contextlib.suppress(OSError), file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
