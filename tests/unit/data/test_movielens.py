import zipfile
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from contracts.dataset import DatasetConfig
from contracts.errors import DataError, NotFound
from training.data import read
from training.data.contract import validate_folder
from training.data.movielens import import_movielens

FLAGS = {"Action": 1, "Crime": 6, "Drama": 8}


def _flags(*genres: str) -> str:
    return "|".join("1" if n in {FLAGS[g] for g in genres} else "0" for n in range(19))


EDITIONS = {
    "movielens-100k": {
        "u.data": "1\t10\t5\t880000000\n1\t11\t3\t880000001\n2\t10\t4\t880000002\n",
        "u.item": f"10|Léon (1994)|18-Nov-1994||http://x|{_flags('Crime', 'Drama')}\n11|Heat|||http://x|{_flags('Action')}\n",
        "u.user": "1|24|M|technician|85711\n2|53|F|other|94043\n",
    },
    "movielens-1m": {
        "ratings.dat": "1::10::5::880000000\n1::11::3::880000001\n2::10::4::880000002\n",
        "movies.dat": "10::Léon (1994)::Crime|Drama\n11::Heat::Action\n",
        "users.dat": "1::M::18::17::85711\n2::F::50::0::94043\n",
    },
    "movielens-latest": {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,10,5.0,880000000\n1,11,3.0,880000001\n2,10,4.0,880000002\n",
        "movies.csv": "movieId,title,genres\n10,Léon (1994),Crime|Drama\n11,Heat,Action\n",
        "links.csv": "movieId,imdbId,tmdbId\n10,1,2\n",
    },
}


def _write(folder, files: dict[str, str], encoding: str = "latin-1"):
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("utf-8" if name.endswith(".csv") else encoding))
    return folder


@pytest.mark.parametrize("form", ["folder", "nested", "zip"])
@pytest.mark.parametrize("edition", EDITIONS)
def test_every_edition_and_form_gives_the_same_events_and_items(tmp_path, edition, form):
    source = _write(tmp_path / "src" / "ml", EDITIONS[edition])
    if form == "nested":
        source = source.parent
    elif form == "zip":
        with zipfile.ZipFile(tmp_path / "ml.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in source.iterdir():
                archive.write(file, f"ml/{file.name}")
        source = tmp_path / "ml.zip"
    report = import_movielens(source, tmp_path / "out")
    assert report.ok
    assert report.rejected == ()
    log = read.interactions(tmp_path / "out").to_pylist()
    moment = lambda s: datetime.fromtimestamp(s, UTC)  # noqa: E731
    assert [tuple(r.values()) for r in log] == [
        ("1", "10", moment(880000000), "rating", 5.0),
        ("1", "11", moment(880000001), "rating", 3.0),
        ("2", "10", moment(880000002), "rating", 4.0),
    ]
    items = read.items(tmp_path / "out").to_pylist()
    assert [(r["item_id"], r["title"], r["category"], r["genres"]) for r in items] == [
        ("10", "Léon (1994)", "Crime", "Crime|Drama"),
        ("11", "Heat", "Action", "Action"),
    ]
    released = datetime(1994, 11, 18, tzinfo=UTC) if edition == "movielens-100k" else datetime(1994, 1, 1, tzinfo=UTC)
    assert [r["published_at"] for r in items] == [released, moment(880000001)]  # no year: the first rating
    config = DatasetConfig.read(tmp_path / "out")
    assert config.name == edition
    assert [(p.event, p.min_value) for p in config.positives] == [("rating", 4.0)]
    assert validate_folder(tmp_path / "out").rejected == ()
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("edition", ["movielens-100k", "movielens-1m"])
def test_users_have_the_same_attributes_in_both_editions(tmp_path, edition):
    import_movielens(_write(tmp_path / "ml", EDITIONS[edition]), tmp_path / "out")
    users = read.users(tmp_path / "out").to_pylist()
    assert [(u["user_id"], u["age_band"], u["gender"]) for u in users] == [("1", "18-24", "M"), ("2", "50-55", "F")]
    assert users[0]["occupation"].startswith("technician")
    assert users[1]["occupation"] == "other"


def test_titles_with_commas_quotes_and_separators_stay_whole(tmp_path):
    files = EDITIONS["movielens-latest"] | {
        "movies.csv": 'movieId,title,genres\n10,"American, The ""X"" (2010)",(no genres listed)\n11,"A\nB",Action\n'
    }
    import_movielens(_write(tmp_path / "ml", files), tmp_path / "out")
    items = read.items(tmp_path / "out").to_pylist()
    assert [(r["title"], r["category"], r["genres"]) for r in items] == [
        ('American, The "X" (2010)', "unknown", None),
        ("A\nB", "Action", "Action"),
    ]


def test_an_item_rated_before_its_release_is_there_from_the_first_rating(tmp_path):
    files = EDITIONS["movielens-1m"] | {"movies.dat": "10::Early (2020)::Drama\n11::Heat::Action\n"}
    import_movielens(_write(tmp_path / "ml", files), tmp_path / "out")
    assert read.items(tmp_path / "out")["published_at"][0].as_py() == datetime.fromtimestamp(880000000, UTC)


def test_broken_lines_are_rejects_with_reasons_and_too_many_stop_it(tmp_path):
    good = "".join(f"{u}::10::4::88000{u:04d}\n" for u in range(1000))
    bad = "7::10::x::880000000\n::10::4::880000000\n8::99::4::880000000\n9::10::4::soon\n"
    files = EDITIONS["movielens-1m"] | {"ratings.dat": good + bad}
    report = import_movielens(_write(tmp_path / "ml", files), tmp_path / "out")
    assert {(r.column, r.reason, r.first_rows) for r in report.rejected} == {
        ("value", "non_finite", (1000,)),
        ("user_id", "null_id", (1001,)),
        ("item_id", "unknown_item", (1002,)),
        ("timestamp", "null_timestamp", (1003,)),
    }
    assert len(pq.read_table(tmp_path / "out" / "rejects.parquet")) == 4
    more = _write(tmp_path / "ml2", files | {"ratings.dat": good + bad * 5})
    with pytest.raises(DataError, match="null_id"):
        import_movielens(more, tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_ten_million_edition_has_no_users_and_works(tmp_path):
    files = {k: v for k, v in EDITIONS["movielens-1m"].items() if k != "users.dat"}
    import_movielens(_write(tmp_path / "ml", files), tmp_path / "out")
    assert read.users(tmp_path / "out") is None


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"readme.txt": "x"}, "no edition of MovieLens"),
        (EDITIONS["movielens-1m"] | EDITIONS["movielens-latest"], "several editions"),
        ({"ratings.csv": "userId,movieId,rating,timestamp\n"}, "no movies.csv"),
        (EDITIONS["movielens-latest"] | {"ratings.csv": ""}, "empty file"),
        (EDITIONS["movielens-latest"] | {"ratings.csv": "user,movie\n1,2\n"}, "userId"),
        (EDITIONS["movielens-latest"] | {"ratings.csv": "userId,movieId,rating,timestamp\n"}, "no rows"),
    ],
)
def test_a_folder_that_is_no_edition_is_named_with_what_is_missing(tmp_path, files, said):
    with pytest.raises(DataError) as caught:
        import_movielens(_write(tmp_path / "ml", files), tmp_path / "out")
    assert said in caught.value.message
    assert [p.name for p in tmp_path.iterdir()] == ["ml"]


def test_a_zip_that_is_none_or_is_cut_says_so(tmp_path):
    path = tmp_path / "ml.zip"
    path.write_bytes(b"hello")
    with pytest.raises(DataError, match="another format"):
        import_movielens(path, tmp_path / "out")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ratings.csv", "x" * 1000)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be unpacked"):
        import_movielens(path, tmp_path / "out")
    with pytest.raises(NotFound):
        import_movielens(tmp_path / "nowhere", tmp_path / "out")


def test_a_zip_cannot_write_outside_its_place(tmp_path):
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        for name, text in EDITIONS["movielens-latest"].items():
            archive.writestr(f"../../{name}", text)
    import_movielens(tmp_path / "ml.zip", tmp_path / "deep" / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "ml.zip"]
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["out"]
