"""The root of `streamrec`. Each group has a file; heavy imports stay inside the commands that need them."""

import typer

from cli import (
    access,
    batch,
    bench,
    build,
    data,
    experiment,
    features,
    flags,
    models,
    monitor,
    privacy,
    quickstart,
    release,
    replay,
    serve,
    simulate,
    skew,
    train,
    up,
)
from contracts import tracking

tracking.off()

app = typer.Typer(
    name="streamrec",
    help="From an interaction log to a recommender service that can be changed safely every day.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    rich_markup_mode="markdown",
)
quickstart.register(app)
train.register(app)
build.register(app)
serve.register(app)
up.register(app)
simulate.register(app)
replay.register(app)
privacy.register(monitor.app)
skew.register(monitor.app)
app.add_typer(data.app, name="data", help="Make, import, check and export data sets.")
app.add_typer(features.app, name="features", help="Feature definitions, materialisation and parity.")
app.add_typer(models.app, name="models", help="Registered models and their lineage.")
app.add_typer(release.app, name="release", help="Shadow, canary, A/B, promotion and rollback.")
app.add_typer(experiment.app, name="experiment", help="Plan, run and judge experiments.")
app.add_typer(monitor.app, name="monitor", help="Drift, skew and what to do about them.")
app.add_typer(access.app, name="access", help="Tokens of operators and keys of consumers.")
app.add_typer(flags.app, name="flags", help="Feature flags and holdouts.")
app.add_typer(batch.app, name="batch", help="Precomputed slates for all users.")
app.add_typer(bench.app, name="bench", help="Side-by-side measurements on the reference workload.")


def run() -> None:
    app()


if __name__ == "__main__":
    run()
