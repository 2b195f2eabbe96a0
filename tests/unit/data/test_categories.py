from training.data.categories import OTHER, by_title


def test_titles_get_the_word_that_most_of_them_share_and_singular_and_plural_are_one():
    titles = ["RED MUG", "MUGS, SET OF 6", "blue mug", "PINK BAG", "BAGS", "JUTE BAG", "MUG BAG", "ODD THING"]
    # Both words stand in four titles; the alphabet decides, `bag` takes its four, `mug` the three that are left.
    assert by_title(titles, least_items=3) == ["mug", "mug", "mug", "bag", "bag", "bag", "bag", OTHER]


def test_colours_sizes_and_materials_make_no_category():
    assert by_title(["RED LARGE WOODEN SET"] * 10, least_items=2) == [OTHER] * 10


def test_a_title_that_is_missing_or_says_nothing_is_other():
    assert by_title([None, "", "123 !!"], least_items=1) == [OTHER] * 3


def test_the_number_of_categories_is_bounded():
    titles = [f"{word} {n}" for word in ("lamp", "sofa", "desk") for n in range(5)]
    assert set(by_title(titles, most=2, least_items=2)) == {"desk", "lamp", OTHER}


def test_words_in_ss_us_and_mas_are_no_plurals_and_boxes_is_box():
    assert by_title(["CHRISTMAS"] * 3, least_items=1)[0] == "christmas"
    assert by_title(["COMPASS"] * 3, least_items=1)[0] == "compass"
    assert by_title(["LUNCHBOXES"] * 3, least_items=1)[0] == "lunchbox"


def test_what_is_listed_later_changes_nothing_for_what_was_there_before():
    early = ["RED MUG", "BLUE MUG", "JUTE BAG", "PINK BAG", "LUNCH BAG"]
    later = ["TRAVEL LAMP", "DESK LAMP", "LAMP", "MUG", "BAG LAMP", "MUG LAMP", "LUNCH BOX"]
    there = [True] * len(early) + [False] * len(later)
    both = by_title([*early, *later], there, least_items=2)
    assert both[: len(early)] == by_title(early, least_items=2) == ["mug", "mug", "bag", "bag", "bag"]
    # No category of their own, however many they are: the first of the early words that stands in the title.
    assert both[len(early) :] == [OTHER, OTHER, OTHER, "mug", "bag", "mug", OTHER]
