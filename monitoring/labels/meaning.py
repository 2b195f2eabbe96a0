"""Whether everybody means the same by a label: the model that serves, the data set, and the metrics of a release."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contracts.dataset import INTERACTIONS, DatasetConfig
from contracts.errors import DataError
from features import duck
from features.labels import LabelRule
from monitoring.signals import Signal, Verdict
from registry.artifacts import open_bundle
from registry.bento_store import bundles_of
from registry.releases.policy import Metric

NAME = "skew.label"
FIRST_ROWS = 5


def rule_of_bundle(folder: Path) -> LabelRule:
    """What the models of a retrieval bundle learned as a positive.

    Raises:
        DataError: the bundle does not say (it was trained before bundles did).
    """
    stored = open_bundle(folder, "retrieval").manifest.params.get("meaning")
    if not stored or not stored.get("positives"):
        raise DataError(f"{folder} does not say what it learned as a positive", next_command="streamrec train --data …")
    return LabelRule.of(DatasetConfig.model_validate({"name": "bundle", **stored}))


def rule_of_bento(tag: str | None, home: Path) -> LabelRule:
    """
    Raises:
        NotFound: no such Bento. DataError: as `rule_of_bundle`.
    """
    return rule_of_bundle(bundles_of(tag, home)["retrieval"])


@dataclass(frozen=True, slots=True)
class Meaning:
    """mismatches: who means something else than the model, and what. rows: compared one by one; of them `different`,
    the first of which are in `examples`."""

    verdict: Verdict
    why: str
    mismatches: tuple[str, ...] = ()
    rows: int = 0
    different: int = 0
    examples: tuple[Mapping[str, Any], ...] = ()

    def signal(self, model: str, at_us: int) -> Signal:
        cause = self.why or "; ".join(self.mismatches)
        details = {"mismatches": list(self.mismatches), "rows": self.rows, "different": self.different}
        return Signal(NAME, model, self.verdict, at_us, value=float(len(self.mismatches)), cause=cause, details=details)


def compare(
    learned: LabelRule,
    datasets: Mapping[str, LabelRule] | None = None,
    metrics: Sequence[Metric] = (),
    rows: "RowsCompared | None" = None,
) -> Meaning:
    """learned: by the model that serves. datasets: by name, what the next training would learn. metrics: of the
    release policy, those that count an event. rows: labels of the service beside those of a training, item by item.
    """
    said = []
    for name, rule in (datasets or {}).items():
        said += [f"model (first) and {name} (second): {what}" for what in learned.differences(rule)]
    for metric in metrics:
        said += _of_metric(learned, metric)
    if rows is not None and rows.different:
        said.append(f"{rows.different} of {rows.n} shown items are labelled otherwise: {rows.why}")
    if said:
        verdict: Verdict = "breach"
        why = ""
    elif not datasets and not metrics and rows is None:
        verdict, why = "inconclusive", "nothing to compare with: no data set, no metric, no rows"
    elif rows is not None and not rows.n:
        verdict, why = "inconclusive", "no shown item that the data set has too has a label that is known yet"
    else:
        verdict, why = "ok", ""
    counted = (rows.n, rows.different, rows.examples) if rows else (0, 0, ())
    return Meaning(verdict, why, tuple(said), *counted)


def _of_metric(learned: LabelRule, metric: Metric) -> list[str]:
    if metric.kind not in ("ctr", "event_rate", "event_mean"):
        return []
    event = metric.event or "click"
    found = [positive for positive in learned.positives if positive.event == event]
    if not found:
        return [f"metric {metric.name} counts `{event}`, which the model did not learn as a positive"]
    said = []
    if all(positive.min_value is not None for positive in found):
        least = min(positive.min_value or 0.0 for positive in found)
        said.append(f"metric {metric.name} counts every `{event}`, the label only those of at least {least:g}")
    windows = {positive.attribution_h for positive in found}
    if windows != {metric.attribution_hours}:
        hours = " or ".join(f"{window:g}" for window in sorted(windows))
        said.append(
            f"metric {metric.name} counts `{event}` for {metric.attribution_hours:g} h after an answer, "
            f"the label for {hours} h"
        )
    return said


@dataclass(frozen=True, slots=True)
class RowsCompared:
    n: int
    different: int
    why: str
    examples: tuple[Mapping[str, Any], ...] = ()


def compare_rows(online: pa.Table, data: Path, rule: LabelRule) -> RowsCompared:
    """Labels of shown items, as the service's own log has them and as a training would make them of an exported data
    set, by the same rule: what differs was lost, doubled or moved on the way.

    online: `request_id`, `item_id`, `label` (null rows are left out), as `Joined.batches` gives them.

    Raises:
        DataError: the data set has no `request_id`, so that its rows cannot be told apart.
    """
    path = data / INTERACTIONS
    config = DatasetConfig.read(data)
    db = duck.connect()
    try:
        db.register("given", online.select(["request_id", "item_id", "label"]))
        db.execute("CREATE TEMP TABLE online AS FROM given WHERE label IS NOT NULL")
        log = db.read_parquet(str(path))
        if "request_id" not in log.columns:
            raise DataError(f"{path} has no request_id", next_command="streamrec data export OUT")
        db.register("log", log)
        value = "value" if "value" in log.columns else "NULL"
        windows = " ".join(
            f"WHEN event = '{p.event.replace(chr(39), 2 * chr(39))}' THEN {p.attribution_h * 3.6e9:.0f}"
            for p in rule.positives
        )
        query = f"""
            WITH shown AS (
                SELECT request_id, item_id, min(epoch_us(timestamp)) AS shown_us FROM log
                WHERE event = $impression AND request_id IS NOT NULL GROUP BY 1, 2
            ), acts AS (
                SELECT request_id, item_id, epoch_us(timestamp) AS at_us, CASE {windows} END AS window_us FROM log
                WHERE {rule.sql(value)} > 0 AND request_id IS NOT NULL
            ), offline AS (
                SELECT s.request_id, s.item_id, max(CASE WHEN a.at_us - s.shown_us <= a.window_us THEN 1 ELSE 0 END)
                    AS label
                FROM shown s LEFT JOIN acts a USING (request_id, item_id) GROUP BY 1, 2
            )
            SELECT online.request_id, online.item_id, online.label AS online, offline.label AS offline
            FROM online JOIN offline USING (request_id, item_id) ORDER BY 1, 2
        """  # noqa: S608 - every part is quoted or a number
        shown = {"impression": config.impression_event or "impression"}
        found: pa.Table = db.sql(query, params=shown).to_arrow_table()
    finally:
        db.close()
    wrong = found.filter(pc.not_equal(found["online"], found["offline"]))
    more = pc.sum(pc.greater(wrong["online"], wrong["offline"])).as_py() or 0
    why = f"{more} are positive online only, {wrong.num_rows - more} in the data set only"
    return RowsCompared(found.num_rows, wrong.num_rows, why, tuple(wrong.slice(0, FIRST_ROWS).to_pylist()))
