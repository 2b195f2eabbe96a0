"""What a check cannot judge is said of somebody that the watch knows, or it would be dropped in silence."""

from pathlib import Path

from benchmarks.watch_log import BENTO, MINUTE_US, World, write_log
from contracts.errors import NotFound
from contracts.settings import Settings
from monitoring.drift.stream.run import stream_run
from monitoring.frames.reference import Reference
from monitoring.watch.checks import skew
from monitoring.watch.checks.base import Asked
from monitoring.watch.schema import read_schema, schema_path

NOW_US = 1_760_000_000_000_000


def asked(home: Path, bento: str) -> Asked:
    return Asked(Settings(home=home), read_schema(schema_path(home)), bento, NOW_US)


def test_skew_of_a_bento_that_answered_nothing_is_said_of_that_bento(tmp_path: Path) -> None:
    (whole,) = skew.check(asked(tmp_path, "streamrec:a"))
    assert (whole.name, whole.model, whole.verdict) == ("skew.whole", "streamrec:a", "inconclusive")


def test_a_ranker_of_no_reference_is_called_by_its_bento_where_that_names_no_version(tmp_path: Path) -> None:
    world = World.draw(0, items=50, users=50)
    write_log(tmp_path, world, requests=20, since_us=NOW_US - 30 * MINUTE_US, until_us=NOW_US - 2 * MINUTE_US, seed=1)

    def none(_: object) -> Reference:
        raise NotFound("run 1 kept no reference")

    (report,) = stream_run(Settings(home=tmp_path), now_us=NOW_US, hours=24, reference=none)
    (whole,) = report.signals()
    assert (whole.name, whole.model, whole.verdict) == ("drift.online", BENTO, "inconclusive")
