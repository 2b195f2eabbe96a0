"""The whole training: snapshot → split → rankers → retrieval → bundles → evaluation → evidence → registry."""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bentos.recommender.rules import default_rules
from contracts.errors import DataError, NotFound
from contracts.framing import Framing
from contracts.quality import QualityPolicy
from contracts.rules import RulesDocument
from contracts.settings import Settings
from features.registry import REGISTRY
from registry.artifacts import Bundle, Kind, copy_bundle, open_bundle
from registry.cards.files import write_cards
from registry.environment import code_state
from registry.reference import FILES, FOLDER
from training import checks
from training.ablation.result import AblationConfig
from training.assess import Evaluation, assess
from training.baseline_checks import beaten
from training.baselines.fitted import LadderConfig
from training.bundles import write_fallback, write_ranking
from training.data import read, snapshot
from training.data.snapshot import Snapshot
from training.fitting import Fitter
from training.framing import framed
from training.holdout import TEST_SHARE, time_of_share
from training.interactions import read_items, read_log
from training.leakage.run import leakage_checks
from training.models.dcn_v2 import DcnConfig
from training.models.trees import TreesConfig
from training.progress import Progress, silent
from training.ranking import Rankers, RankingConfig, fit_rankers, moments
from training.recipe import log_recipe, recipe
from training.reference import SLATE_ROWS, write_reference
from training.release_checks import with_release_checks
from training.report import plots
from training.report.facts import Facts
from training.report.page import FOLDER as REPORT_FOLDER
from training.report.page import NAME as REPORT_NAME
from training.report.page import write_report
from training.retrieval import RetrievalConfig
from training.study.checks import study_checks
from training.study.logged import log_rigour
from training.weaker import what_is_weaker

SOURCES_INDEX = "sources.json"


class TrainConfig(BaseModel):
    """Everything of a training that has a number. Logged with the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    test_share: float = Field(TEST_SHARE, gt=0, lt=1)
    retrieval: RetrievalConfig = RetrievalConfig()
    ranking: RankingConfig = RankingConfig()
    dcn: DcnConfig = DcnConfig()
    trees: TreesConfig = TreesConfig()
    ladder: LadderConfig = LadderConfig()
    ablation: AblationConfig = AblationConfig()


@dataclass(frozen=True, slots=True)
class TrainResult:
    """models: kind → MLflow URI. metrics, baselines: plain numbers. warnings: what a reader should know. ranker: which
    one serves, and why. report: the page for people, in MLflow's words; report_path: the same on this machine, where
    the run lies here."""

    run_id: str
    models: Mapping[Kind, str]
    metrics: Mapping[str, Any]
    baselines: Mapping[str, Mapping[str, Any]]
    seconds: float
    evaluation: Evaluation | None
    snapshot: str
    trained_until_us: int
    report: str
    report_path: Path | None = None
    warnings: tuple[str, ...] = field(default=())
    ranker: str = ""


def train(
    data: Path | Snapshot,
    *,
    until_us: int | None,
    seed: int,
    settings: Settings,
    config: TrainConfig | None = None,
    rules: RulesDocument | None = None,
    quality: QualityPolicy | None = None,
    framing: Framing | None = None,
    keep: Path | None = None,
    progress: Progress = silent,
) -> TrainResult:
    """Train, evaluate and register.

    Without `until_us` the last `test_share` of the rows is held out for the figures; then the retrieval models and the
    popularity lists are fitted again on all rows, and those are registered. With it, models that saw rows before
    `until_us` only are registered, and the rows from then on are the test window where there are any. keep: also copy
    the three bundles there.

    Raises:
        NotFound, DataError: no such data set, or nothing to learn from. Unreachable: the registry is away.
    """
    from registry.builds import import_models
    from registry.models import Lineage, Registry

    started = time.perf_counter()
    config = config or TrainConfig()
    rules = rules or (RulesDocument.read(settings.rules) if settings.rules else default_rules())
    quality = quality or QualityPolicy.read(settings.quality)
    framing = framing or Framing.read(settings.framing)
    kept, notes = (data, ()) if isinstance(data, Snapshot) else take_snapshot(data, settings.home)
    source = str(kept.folder if isinstance(data, Snapshot) else data.resolve())
    frame = framed(framing, kept.config, config.retrieval, config.ranking)
    plan = split(kept, until_us, config)
    notes = (*notes, *frame.warnings, *what_is_weaker(kept.folder, kept.config, plan.final_us))
    registry = Registry.open(settings)
    with (
        registry.run(
            f"train {kept.config.name}",
            params={"seed": seed, "until_us": plan.final_us, "cut_us": plan.cut_us, **config.model_dump(mode="json")},
            tags={"dataset": kept.config.name, "rules": rules.digest},
        ) as run,
        tempfile.TemporaryDirectory(prefix="streamrec-train-") as temporary,
        Fitter(kept.folder, kept.config, seed, frame.retrieval, progress) as fit,
    ):
        folder = Path(temporary)
        log_recipe(run, recipe(config, seed, until_us, rules, quality, framing))
        run.log_json("framing.json", frame.document)
        fit.ahead([*moments(kept.folder, plan.cut_us, frame.ranking), plan.cut_us, plan.final_us])
        rankers = fit_rankers(
            kept.folder,
            kept.config,
            plan.cut_us,
            fit,
            seed=seed,
            ranking=frame.ranking,
            dcn=config.dcn,
            trees=config.trees,
            framing=framing,
            progress=progress,
        )
        bundles, difference = write_bundles(folder / "evaluated", kept, plan.cut_us, fit, rankers)
        as_evaluated = bundles["retrieval"]
        judged = None
        if plan.test_to_us > plan.cut_us:
            judged = assess(
                {kind: bundle.folder for kind, bundle in bundles.items()},
                kept.folder,
                kept.config,
                plan.cut_us,
                plan.test_to_us,
                rules,
                gather=SLATE_ROWS,
                seed=seed,
                steps=config.ladder,
                train_s=time.perf_counter() - started,
                ablation=config.ablation,
                quality=quality,
                progress=progress,
            )
        if plan.final_us != plan.cut_us:
            bundles, difference = write_bundles(folder / "final", kept, plan.final_us, fit, rankers)
        warnings = (*notes, *plan.notes, *(judged.notes if judged else ()), *rankers.warnings)
        reference = write_reference(
            folder / "reference",
            judged.shown if judged else None,
            rankers.candidates,
            importance=rankers.importance,
            read_by_ranker=rankers.reads,
            retrieval=bundles["retrieval"],
            data=kept.folder,
            data_digest=kept.digest,
            seed=seed,
        )
        rigour = [
            *leakage_checks(
                kept.folder,
                kept.config,
                plan.cut_us,
                plan.test_to_us,
                as_evaluated,
                rankers,
                judged.study.sides if judged and judged.study else None,
                judged.ranker.auc.value if judged else float("nan"),
                dcn=config.dcn,
                trees=config.trees,
                seed=seed,
            ),
            *study_checks(judged, quality, rankers.calibration),
        ]
        evidence = checks.all_checks(kept, bundles, judged, difference, reference, rigour)
        evidence = with_release_checks(evidence, registry, bundles, quality, frame.document, settings.budgets)
        _log(run, kept, source, judged, rankers, warnings, folder)
        log_rigour(run, rigour, judged, quality, rankers.calibration)
        for file in FILES:
            run.log_file(reference.folder / file, folder=FOLDER)
        facts = Facts(
            run_id=run.id,
            data_name=kept.config.name,
            data_source=source,
            data_digest=kept.digest,
            rows=kept.rows,
            cut_us=plan.cut_us,
            final_us=plan.final_us,
            until_us=until_us,
            seed=seed,
            rules=rules.digest,
            feature_hash=REGISTRY.hash,
            code=code_state(),
            config=config.model_dump(mode="json"),
            seconds=time.perf_counter() - started,
            importance=rankers.importance,
            calibration=rankers.calibration,
            policy=quality,
            evidence=evidence,
            warnings=warnings,
        )
        run.log_file(write_report(folder / REPORT_NAME, facts, judged), folder=REPORT_FOLDER)
        figures = judged.metrics() if judged else {}
        baselines = {scores.name: scores.plain() for scores in judged.baselines} if judged else {}
        versions = run.register(
            bundles={kind: bundle.folder for kind, bundle in bundles.items()},
            checks=evidence,
            lineage=Lineage(
                data_name=kept.config.name,
                data_digest=kept.digest,
                data_source=source,
                seeds={"global": seed},
                until_us=plan.final_us,
                metrics={name: value for name, value in figures.items() if value is not None},
                baselines={
                    name: {metric: value for metric, value in values.items() if isinstance(value, float)}
                    for name, values in baselines.items()
                },
                beaten=beaten(judged),
                reference_digest=reference.digest,
                framing=frame.document,
            ),
        )
        if keep is not None:
            _keep(bundles, keep)
        run_id = run.id
    write_cards(versions.values(), registry, settings)
    # Into the Bento model store as well, so that a plain `bentoml build` finds them.
    import_models(registry, versions.values(), settings.home)
    return TrainResult(
        run_id=run_id,
        models={kind: version.uri for kind, version in versions.items()},
        metrics=figures,
        baselines=baselines,
        seconds=time.perf_counter() - started,
        evaluation=judged,
        snapshot=kept.digest,
        trained_until_us=plan.final_us,
        report=f"runs:/{run_id}/{REPORT_FOLDER}/{REPORT_NAME}",
        report_path=where / REPORT_NAME if (where := registry.run_folder(run_id, REPORT_FOLDER)) else None,
        warnings=warnings,
        ranker=f"{rankers.pick.name}, {rankers.pick.why}",
    )


# --- stages ----------------------------------------------------------------------------------------------------------


def take_snapshot(data: Path, home: Path) -> tuple[Snapshot, tuple[str, ...]]:
    """The rows to train on, kept for good; a source folder that is gone is replaced by what was kept of it.

    Raises:
        NotFound: neither the folder nor a snapshot of it is there. DataError: it breaks the contract.
    """
    index_path = home / snapshot.SNAPSHOTS / SOURCES_INDEX
    index = json.loads(index_path.read_text()) if index_path.exists() else {}
    name = str(data.resolve())
    if not data.exists():
        digest = index.get(name)
        if digest is None:
            raise NotFound(f"there is no data set at {data}", next_command="streamrec data synth OUT")
        return Snapshot.open(home, digest), (f"{data} is gone: trained on its snapshot {digest[:12]}",)
    taken = snapshot.take(data, home)
    part = index_path.with_name(SOURCES_INDEX + ".part")
    part.write_text(json.dumps(index | {name: taken.digest}, indent=1))
    part.rename(index_path)
    return taken, ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Fit before `cut_us`, test on [cut_us, test_to_us), register models fitted before `final_us`."""

    cut_us: int
    test_to_us: int
    final_us: int
    notes: tuple[str, ...] = ()


def split(kept: Snapshot, until_us: int | None, config: TrainConfig) -> Plan:
    """
    Raises:
        DataError: no row before `until_us`.
    """
    end_us = read.log_end_us(kept.folder) + 1
    if until_us is not None and until_us < end_us:
        if not read.interactions(kept.folder, ["timestamp"], until_us=until_us).num_rows:
            raise DataError(
                f"{kept.config.name} has no row before --until", next_command=f"streamrec data describe {kept.folder}"
            )
        return Plan(until_us, end_us, until_us)
    final_us = end_us if until_us is None else until_us
    cut_us = time_of_share(kept.folder, config.test_share)
    first = read.interactions(kept.folder, ["timestamp"], until_us=cut_us)
    if not first.num_rows:
        return Plan(final_us, final_us, final_us, ("too few rows to hold any out: nothing was evaluated",))
    note = "figures are of models fitted before the test window; the registered ones are fitted again on all rows"
    return Plan(cut_us, end_us, final_us, (note,))


def write_bundles(
    folder: Path, kept: Snapshot, until_us: int, fit: Fitter, rankers: Rankers
) -> tuple[dict[Kind, Bundle], float]:
    """The three bundles as of `until_us`, and how far the exported ranker's scores are from the model's."""
    folder.mkdir(parents=True)
    retrieval = fit(until_us, folder / "retrieval")
    items = read_items(kept.folder, until_us)
    log = read_log(kept.folder, kept.config, items, until_us)
    sealed = {
        "feature_hash": REGISTRY.hash,
        "catalogue_hash": retrieval.manifest.catalogue_hash,
        "signature": rankers.schema.signature,
        "n_items": len(items.catalogue),
        "trained_until_us": until_us,
        "clock": kept.config.clock,
        "log_end_us": retrieval.manifest.log_end_us,
        "params": dict(rankers.figures),
    }
    ranking, difference = write_ranking(folder / "ranking", rankers.ranker, rankers.schema, rankers.sample, **sealed)
    fallback = write_fallback(folder / "fallback", rankers.logistic, rankers.schema, log, items.catalogue, **sealed)
    return {"retrieval": retrieval, "ranking": ranking, "fallback": fallback}, difference


def _log(
    run: Any,
    kept: Snapshot,
    source: str,
    judged: Evaluation | None,
    rankers: Rankers,
    warnings: Sequence[str],
    at: Path,
) -> None:
    """What the MLflow UI shows of this run: the data, the figures, the table and the plots."""
    run.log_dataset(
        folder=kept.folder,
        name=kept.config.name,
        digest=kept.digest,
        rows=kept.rows["interactions"],
        source=source,
    )
    run.log_metrics(dict(rankers.figures))
    run.log_tags({"ranker": rankers.pick.name, "ranker_why": rankers.pick.why})
    run.log_json("warnings.json", {"warnings": list(warnings)})
    if judged is None:
        return
    run.log_metrics(judged.metrics())
    for scores in judged.baselines:
        run.log_metrics({f"{scores.name}/{name}": v for name, v in scores.plain().items() if isinstance(v, float)})
    run.log_table("evaluation", [{"model": scores.name, **scores.plain()} for scores in judged.tables()])
    run.log_table("ladder", [rung.plain() for rung in judged.ladder.rungs])
    run.log_tags({"ladder_choice": judged.ladder.choice})
    run.log_json("slices.json", {scores.name: scores.plain_slices() for scores in judged.tables()})
    run.log_json(
        "recall_by_k.json", {name: {str(k): v for k, v in c.items()} for name, c in judged.recall_by_k.items()}
    )
    if judged.ablations is not None:
        run.log_table("ablations", judged.ablations.table())
        run.log_json("ablations.json", judged.ablations.plain())
    for picture in plots.draw(judged, at / "plots"):
        run.log_file(picture, folder="plots")


def _keep(bundles: Mapping[Kind, Bundle], target: Path) -> None:
    """Copy the bundles to `target`, replacing what an earlier run left there."""
    target.mkdir(parents=True, exist_ok=True)
    for kind, bundle in bundles.items():
        shutil.rmtree(target / kind, ignore_errors=True)
        copy_bundle(bundle.folder, target / kind)


# --- a Bento on a window ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EvaluateResult:
    bento: str
    evaluation: Evaluation
    warnings: tuple[str, ...]


def evaluate(
    data: Path,
    *,
    from_us: int,
    to_us: int | None,
    tag: str | None,
    settings: Settings,
    progress: Progress = silent,
) -> EvaluateResult:
    """Figures of a built Bento on [from_us, to_us) of a data set, which is kept as a snapshot.

    Raises:
        NotFound: no such Bento or data set. DataError: it breaks the contract, or nothing is before `from_us`.
    """
    from registry.builds import bento_path, bundles_of

    full_tag, _ = bento_path(tag, settings.home)
    folders = bundles_of(full_tag, settings.home)
    kept, notes = take_snapshot(data, settings.home)
    end_us = read.log_end_us(kept.folder) + 1
    if from_us >= end_us:
        raise DataError(
            f"{data} ends before --from: there is nothing to test on", next_command=f"streamrec data describe {data}"
        )
    rules = RulesDocument.read(settings.rules) if settings.rules else default_rules()
    trained_until_us = max(open_bundle(path, kind).manifest.trained_until_us for kind, path in folders.items())
    if trained_until_us > from_us:
        notes = (
            *notes,
            f"{full_tag} was trained on rows after --from and never shows what a user met in them: these figures do "
            "not measure it",
        )
    judged = assess(folders, kept.folder, kept.config, from_us, min(to_us or end_us, end_us), rules, progress=progress)
    return EvaluateResult(full_tag, judged, (*notes, *judged.notes))
