import json

from bentos.gateway.last_resort import SLATE_AGE_S, LastResort, Popular, Slates
from contracts.http import RecommendedItem


def items(*ids: str, top: float = 1.0) -> list[RecommendedItem]:
    return [RecommendedItem(i, top - n / 10, n + 1, ["trending"]) for n, i in enumerate(ids)]


def ids(slate: tuple[str, list[RecommendedItem]]) -> tuple[str, list[str]]:
    return slate[0], [item.item_id for item in slate[1]]


def test_the_users_last_slate_comes_first_without_what_is_excluded(tmp_path):
    resort = LastResort(tmp_path / "p.json")
    resort.slates.put("u1", items("a", "b", "c"), now=0.0)
    rung, slate = resort.slate("u1", 2, ["a"], now=1.0)
    assert rung == "cached"
    assert [(i.item_id, i.position) for i in slate] == [("b", 1), ("c", 2)]


def test_a_short_slate_is_filled_from_popularity_each_item_once_and_scores_never_rise(tmp_path):
    resort = LastResort(tmp_path / "p.json")
    resort.popular = Popular("b:1", 0, items("b", "x", "y", top=99.0))
    resort.slates.put("u1", items("a", "b"), now=0.0)
    rung, slate = resort.slate("u1", 4, [], now=1.0)
    assert (rung, [i.item_id for i in slate]) == ("cached", ["a", "b", "x", "y"])
    assert [i.score for i in slate] == sorted((i.score for i in slate), reverse=True)


def test_without_a_slate_of_the_user_popularity_answers_and_honours_exclude_and_k(tmp_path):
    resort = LastResort(tmp_path / "p.json")
    resort.popular = Popular("b:1", 0, items("a", "b", "c"))
    assert ids(resort.slate("u1", 2, ["a"], now=0.0)) == ("popularity", ["b", "c"])
    assert ids(resort.slate("u1", 2, ["a", "b", "c"], now=0.0)) == ("popularity", [])


def test_an_old_slate_is_not_served(tmp_path):
    resort = LastResort(tmp_path / "p.json")
    resort.slates.put("u1", items("a"), now=0.0)
    assert ids(resort.slate("u1", 1, [], now=SLATE_AGE_S)) == ("cached", ["a"])
    assert ids(resort.slate("u1", 1, [], now=SLATE_AGE_S + 1)) == ("popularity", [])


def test_slates_are_bounded_in_bytes_and_the_oldest_go_first():
    slates = Slates(max_bytes=20_000)
    for n in range(1000):
        slates.put(f"u{n}", items("a", "b"), now=0.0)
    assert 10 < len(slates) < 100
    assert slates.get("u999", 0.0)
    assert not slates.get("u0", 0.0)
    for _ in range(1000):  # the same user again and again takes one place
        slates.put("u999", items("a", "b"), now=0.0)
    assert slates._bytes <= 20_000
    slates.put("big", items(*map(str, range(5000))), now=0.0)
    assert slates._bytes == 0  # over the bound by itself: not kept


def test_the_list_outlives_the_process_and_a_torn_file_is_named_not_fatal(tmp_path):
    file = tmp_path / "run" / "p.json"
    LastResort(file).keep(Popular("b:1", 7, items("a", "b")))
    again = LastResort(file)
    again.load()
    assert again.popular == Popular("b:1", 7, items("a", "b"))
    assert [p.name for p in file.parent.iterdir()] == ["p.json"]
    file.write_text(json.dumps({"bento": 1})[:-2])
    torn = LastResort(file)
    torn.load()
    assert torn.popular is None
    assert "p.json" in torn.problem


def test_a_disk_that_takes_nothing_costs_only_the_file(tmp_path):
    (tmp_path / "run").write_text("in the way")
    resort = LastResort(tmp_path / "run" / "p.json")
    resort.keep(Popular("b:1", 7, items("a")))
    assert "cannot be written" in resort.problem
    assert ids(resort.slate("u", 1, [], now=0.0)) == ("popularity", ["a"])
