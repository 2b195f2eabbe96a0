"""Answers for a person: those since the last look are queued, and the signal is how many wait (`monitoring/review`)."""

from contracts.errors import ArtifactError, NotFound
from monitoring.review.queue import fill, items_of, open_cases
from monitoring.signals import Signal, Verdict
from monitoring.watch.checks.base import Asked
from registry.control.documents import SqlDocuments
from registry.control.sql import control_store

OPEN = "review.open"


def check(asked: Asked) -> list[Signal]:
    rules, home, now_us = asked.schema.review, asked.settings.home, asked.now_us
    try:
        documents = SqlDocuments(control_store(asked.settings))
        queue = fill(documents, home, items_of(asked.bento, home), rules, now_us)
    except (NotFound, ArtifactError) as error:  # a data set without prices has nothing dear
        return [Signal(OPEN, "", "inconclusive", now_us, threshold=float(rules.most_open), cause=error.message)]
    waiting = open_cases(queue)
    full = waiting >= rules.most_open
    cause = f"{waiting} answers wait for {rules.owner}" + (", and no more are queued" if full else "")
    verdict: Verdict = "breach" if full else "ok"
    details = {"dropped": queue["dropped"]}
    return [Signal(OPEN, "", verdict, now_us, float(waiting), float(rules.most_open), cause=cause, details=details)]
