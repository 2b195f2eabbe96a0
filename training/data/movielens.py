"""MovieLens 100k, 1M (and 10M), latest (and 20M to 32M) as a data set: ratings, positive from 4 stars on.

Each edition is a layout: which files it has, and SQL that reads them into the same columns. What an edition lacks is
left out (no users in `latest`, no release dates but the year in the title after 100k). An item is there from its
release or its first rating, whichever came first. The category is the first genre.
"""
# ruff: noqa: S608  SQL is made of our own names

import glob
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from contracts.dataset import INTERACTIONS, ITEMS, REJECTS, USERS
from contracts.errors import DataError, NotFound
from training.data.contract import checked, write_accepted, write_rejects
from training.data.engine import connect, parquet, text, write_query
from training.data.folder import publish, write_config
from training.data.report import Report
from training.data.structure import file_kind

MAX_UNPACKED_BYTES = 8 << 30

CONFIG = """\
name = "{name}"
licence = "MovieLens: research use, see the README of the edition (GroupLens, University of Minnesota)"
clock = "log_end"
slices = [{slices}]
max_reject_share = 0.01

[[positives]]
event = "rating"
min_value = 4.0

[[features]]
column = "category"
table = "items"
kind = "categorical"

[[features]]
column = "title"
table = "items"
kind = "text"

[[features]]
column = "genres"
table = "items"
kind = "text"
"""
USER_FEATURE = """
[[features]]
column = "{column}"
table = "users"
kind = "categorical"
"""
USER_COLUMNS = ("age_band", "gender", "occupation")

GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
OCCUPATIONS_1M = (
    "other",
    "academic or educator",
    "artist",
    "clerical or admin",
    "college or grad student",
    "customer service",
    "doctor or health care",
    "executive or managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales or marketing",
    "scientist",
    "self-employed",
    "technician or engineer",
    "tradesman or craftsman",
    "unemployed",
    "writer",
)
# The bands that the 1M edition uses, so that 100k's years fall into the same ones.
AGE_BAND = (
    "CASE WHEN years IS NULL THEN NULL WHEN years < 18 THEN 'under 18' WHEN years < 25 THEN '18-24' "
    "WHEN years < 35 THEN '25-34' WHEN years < 45 THEN '35-44' WHEN years < 50 THEN '45-49' "
    "WHEN years < 56 THEN '50-55' ELSE '56+' END"
)


@dataclass(frozen=True)
class Layout:
    """files: role → file name. The SQL reads views of the roles' names: rows of a CSV file, or whole lines as `line`.

    ratings gives user_id, item_id, stars, seconds (text); items gives item_id, title, genres (`A|B`), released (date or
    null); users gives user_id, years, gender, occupation.
    """

    name: str
    files: Mapping[str, str]
    ratings: str
    items: str
    users: str | None = None
    csv: bool = False


def _field(separator: str, place: int) -> str:
    """A field of `line`, from 1; null when empty."""
    return f"nullif(trim(split_part(line, {text(separator)}, {place})), '')"


def _ratings(separator: str) -> str:
    user, item, stars, seconds = (_field(separator, place) for place in range(1, 5))
    return f"SELECT {user} AS user_id, {item} AS item_id, {stars} AS stars, {seconds} AS seconds FROM ratings"


# "Heat (1995)" → the first day of 1995.
_YEAR = r"try_cast(regexp_extract(title, '\((\d{4})\)\s*$', 1) || '-01-01' AS DATE)"
_FLAGS = ", ".join(f"CASE WHEN {_field('|', 6 + n)} = '1' THEN {text(g)} END" for n, g in enumerate(GENRES_100K))
_OCCUPATION = f"list_extract([{', '.join(map(text, OCCUPATIONS_1M))}], try_cast({_field('::', 4)} AS INTEGER) + 1)"

LAYOUTS = (
    Layout(
        "movielens-100k",
        {"ratings": "u.data", "items": "u.item", "users": "u.user"},
        _ratings("\t"),
        f"SELECT {_field('|', 1)} AS item_id, {_field('|', 2)} AS title, "
        f"array_to_string(list_filter([{_FLAGS}], lambda g: g IS NOT NULL), '|') AS genres, "
        f"try_strptime({_field('|', 3)}, '%d-%b-%Y')::DATE AS released FROM items",
        f"SELECT {_field('|', 1)} AS user_id, try_cast({_field('|', 2)} AS INTEGER) AS years, "
        f"{_field('|', 3)} AS gender, {_field('|', 4)} AS occupation FROM users",
    ),
    Layout(
        "movielens-1m",
        {"ratings": "ratings.dat", "items": "movies.dat", "users": "users.dat"},
        _ratings("::"),
        f"SELECT *, {_YEAR} AS released FROM (SELECT {_field('::', 1)} AS item_id, {_field('::', 2)} AS title, "
        f"{_field('::', 3)} AS genres FROM items)",
        f"SELECT {_field('::', 1)} AS user_id, try_cast({_field('::', 3)} AS INTEGER) AS years, "
        f"{_field('::', 2)} AS gender, {_OCCUPATION} AS occupation FROM users",
    ),
    Layout(
        "movielens-latest",
        {"ratings": "ratings.csv", "items": "movies.csv"},
        "SELECT userId AS user_id, movieId AS item_id, rating AS stars, timestamp AS seconds FROM ratings",
        f"SELECT movieId AS item_id, title, genres, {_YEAR} AS released FROM items",
        csv=True,
    ),
)
OPTIONAL = frozenset({"users"})  # 10M has the files of 1M, without users


def import_movielens(source: Path, out: Path, *, progress: Callable[[str], None] | None = None) -> Report:
    """Read a folder or a zip file of any edition and write a data set to `out`, whole or not at all.

    Raises:
        NotFound: no such source. DataError: no edition that we know, or too much of it broken.
        UsageError: `out` is in use.
    """
    say = progress or (lambda _: None)
    source = Path(source)
    if not source.exists():
        raise NotFound(f"{source} is not there", next_command="streamrec data import movielens FOLDER-OR-ZIP OUT")
    with publish(Path(out), {"made_by": "import movielens"}) as folder:
        stage = folder / ".stage"
        stage.mkdir()
        if source.is_file():
            say("unpacking")
            files = _unpack(source, stage / "source")
        else:
            files = _found(p for p in (*source.iterdir(), *source.glob("*/*")) if p.is_file())
        layout = _layout(source, files)
        say(f"reading {layout.name}")
        with connect(f"importing {source}") as connection:
            _write_stage(connection, layout, files, stage)
        say("checking")
        with checked(stage) as check:
            report = replace(check.report, folder=source)
            report.raise_if_too_many()
            write_accepted(check, folder)
            if report.rejected:
                write_rejects(check, folder / REJECTS)
        (stage / "dataset.toml").replace(folder / "dataset.toml")
        shutil.rmtree(stage)
    return replace(report, folder=Path(out))


def _layout(source: Path, files: Mapping[str, Path]) -> Layout:
    fitting = [layout for layout in LAYOUTS if layout.files["ratings"] in files]
    if len(fitting) != 1:
        known = "; ".join(f"{la.name}: {', '.join(la.files.values())}" for la in LAYOUTS)
        said = "no edition of MovieLens" if not fitting else "several editions of MovieLens"
        raise DataError(f"{source} holds {said}. Known are {known}")
    layout = fitting[0]
    for role, name in layout.files.items():
        if name not in files:
            if role not in OPTIONAL:
                raise DataError(f"{source} has {layout.files['ratings']} but no {name}")
        elif file_kind(files[name]) != "a file of another format":
            raise DataError(f"{files[name].name} in {source} is {file_kind(files[name])}, not text")
    return layout


def _write_stage(connection: duckdb.DuckDBPyConnection, layout: Layout, files: Mapping[str, Path], stage: Path) -> None:
    """The raw rows under the contract's names; what is broken becomes null or NaN, for the contract to reject."""
    for role, name in layout.files.items():
        if name in files:
            path = text(glob.escape(str(files[name])))
            connection.execute(f"CREATE VIEW {role} AS SELECT * FROM {_csv(path) if layout.csv else _lines(path)}")
    write_query(
        connection,
        "SELECT user_id, item_id, to_timestamp(try_cast(seconds AS BIGINT)) AS timestamp, 'rating' AS event, "
        f"coalesce(try_cast(stars AS DOUBLE), 'nan'::DOUBLE) AS value FROM ({layout.ratings})",
        stage / INTERACTIONS,
    )
    rated = parquet(stage / INTERACTIONS)
    write_query(
        connection,
        f"""
        WITH first AS (SELECT item_id, min(timestamp) AS rated FROM {rated} GROUP BY 1),
        start AS (SELECT min(timestamp) AS log FROM {rated})
        SELECT i.item_id, nullif(nullif(split_part(genres, '|', 1), ''), '(no genres listed)') AS category,
               coalesce(least(released::TIMESTAMP::TIMESTAMPTZ, rated), rated, log) AS published_at,
               title, nullif(nullif(genres, ''), '(no genres listed)') AS genres
        FROM ({layout.items}) i LEFT JOIN first USING (item_id), start ORDER BY i.item_id
        """,
        stage / ITEMS,
    )
    users = layout.users is not None and layout.files["users"] in files
    if users:
        write_query(
            connection,
            f"SELECT user_id, {AGE_BAND} AS age_band, gender, occupation FROM ({layout.users}) ORDER BY user_id",
            stage / USERS,
        )
    slices = ", ".join(f'"{c}"' for c in USER_COLUMNS) if users else ""
    config = CONFIG.format(name=layout.name, slices=slices)
    if users:
        config += "".join(USER_FEATURE.format(column=column) for column in USER_COLUMNS)
    write_config(stage, config)


def _lines(path: str) -> str:
    """A file as one column `line`. Latin-1 reads any byte, and is what these files are."""
    return (
        f"read_csv({path}, columns = {{'line': 'VARCHAR'}}, delim = '\\x01', quote = '', escape = '', header = false, "
        "auto_detect = false, encoding = 'latin-1')"
    )


def _csv(path: str) -> str:
    return f"read_csv({path}, header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"')"


def _found(paths: Iterable[Path]) -> dict[str, Path]:
    return {p.name: p for p in paths if p.name in _wanted()}


def _wanted() -> set[str]:
    return {name for layout in LAYOUTS for name in layout.files.values()}


def _unpack(source: Path, target: Path) -> dict[str, Path]:
    """The files we know, out of a zip file, by their base names; nothing is written outside `target`."""
    wanted = _wanted()
    kind = file_kind(source)
    if kind != "a zip archive":
        raise DataError(f"{source} is {kind}; give the folder or the zip file of MovieLens")
    target.mkdir()
    files: dict[str, Path] = {}
    try:
        with zipfile.ZipFile(source) as archive:
            members = [m for m in archive.infolist() if Path(m.filename).name in wanted and not m.is_dir()]
            if sum(m.file_size for m in members) > MAX_UNPACKED_BYTES:
                raise DataError(f"{source} unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB")
            for member in members:
                name = Path(member.filename).name
                with archive.open(member) as packed, (target / name).open("wb") as plain:
                    shutil.copyfileobj(packed, plain, 1 << 20)
                files[name] = target / name
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise DataError(f"{source} cannot be unpacked: {error}") from error
    return files
