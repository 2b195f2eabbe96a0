"""`streamrec data export`."""

from pathlib import Path
from typing import Annotated

import typer

from cli.moments import moment_us
from cli.output import Json, emit, err, errors_end_well, out
from contracts.settings import load_settings
from contracts.user_keys import UserKeys


def register(app: typer.Typer) -> None:
    @app.command()
    @errors_end_well
    def export(
        target: Annotated[
            Path, typer.Argument(metavar="OUT", help="Folder to write; replaced only if such a command made it.")
        ],
        since: Annotated[str | None, typer.Option(metavar="T", help="Only what was logged from then on.")] = None,
        until: Annotated[str | None, typer.Option(metavar="T", help="Only what was logged before.")] = None,
        items: Annotated[
            Path | None,
            typer.Option(metavar="DIR", help="Data set of the items and users [default: the newest snapshot]."),
        ] = None,
        base: Annotated[
            Path | None, typer.Option(metavar="DIR", help="Put this data set's log first, own records after it.")
        ] = None,
        home: Annotated[Path | None, typer.Option(help="Where the service keeps its logs.")] = None,
        as_json: Json = False,
    ) -> None:
        """Turn the service's own exposures and events into a data set, impressions included, that `train` accepts.

        Example: `streamrec data export data/own --since 2026-01-01 --base data/online-retail`
        """
        settings = load_settings({"home": home})
        since_us, until_us = moment_us(since, "--since"), moment_us(until, "--until")
        from bentos.telemetry.roll import roll
        from training.data.export import export as write

        with err.status("Reading the logs …"):
            roll(settings.home)
            done = write(
                settings.home,
                target,
                items_from=items,
                base=base,
                since_us=since_us,
                until_us=until_us,
                event_log=settings.event_log,
                keys=UserKeys.of(settings.user_keys),
            )
        document = {
            "out": str(target),
            "impressions": done.impressions,
            "events": done.events,
            "base_rows": done.base,
            "rejected": done.rejected,
            "repeated": done.repeated,
            "positives_added": list(done.positives_added),
            "shifted_s": done.shifted_us / 1e6,
        }

        def human() -> None:
            out.print(f"{target}: {done.impressions:,} impressions and {done.events:,} events")
            if done.base:
                out.print(f"after {done.base:,} rows of {base}")
            if done.shifted_us:
                out.print(f"own times were moved back by {-done.shifted_us / 86_400e6:,.1f} days: that log has ended")
            if done.rejected:
                out.print(f"{done.rejected:,} rows of unknown items are in rejects.parquet")
            if done.positives_added:
                out.print("no event was a positive of this data set, so `click` is one in the exported dataset.toml")
            out.print(f"next: streamrec train --data {target}")

        emit(document, as_json=as_json, human=human)
