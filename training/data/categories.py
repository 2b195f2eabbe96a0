"""Categories for a catalogue that has none: the product word of each title, by a greedy cover.

The word that stands in most titles that have no category yet becomes the next category and takes those titles, until
enough categories are made or none would be large enough; the rest is `other`. No randomness, no model, and each name
says why an item is in it. It reads titles only, never who bought what. Which words become categories is
told by the titles that were there early; any other gets the first of them that stands in it, so that what is listed
later changes nothing for what was there before.
"""

import re
from collections import Counter
from collections.abc import Sequence

# Words that say how a thing looks, of what it is made or how it is packed, not what it is.
_NOT_A_THING = frozenset(
    """
    a and of the with in on for to by from at no de la
    set pack box boxed assorted asst asstd colour colours color design designs style size piece pieces pc pcs cm mm
    red pink blue green white black ivory cream gold silver purple yellow orange brown grey turquoise lilac amber
    multicolour multi col natural clear dark light pale bright
    small large medium mini big giant jumbo tall long short round square oval double single triple twin
    vintage retro retrospot retrospots antique classic modern traditional french english danish scandinavian
    polkadot spotty spot stripe striped stripes gingham check paisley floral flower flowers rose roses
    wood wooden metal glass ceramic enamel tin zinc paper cotton felt fabric plastic acrylic porcelain wicker crystal
    i love you my your new sweet sweetheart pretty little lovely home house garden kitchen
    six four three two five ten eight twelve dozen half
    tea t s w c x d o p b
    """.split()  # noqa: SIM905  a list that people read
)
_WORD = re.compile(r"[a-z]+")
OTHER = "other"


def by_title(
    titles: Sequence[str | None], early: Sequence[bool] | None = None, *, most: int = 150, least_items: int = 6
) -> list[str]:
    """One category a title, in order: a function of the title and of the `early` ones (default: all).

    most: categories besides `other`; least_items: the smallest one made, counted among the early titles.
    """
    words = [_things(title) for title in titles]
    known = words if early is None else [found for found, there in zip(words, early, strict=True) if there]
    chosen = _cover(known, most, least_items)
    return [next((word for word in chosen if word in found), OTHER) for found in words]


def _things(title: str | None) -> frozenset[str]:
    words = {_singular(word) for word in _WORD.findall((title or "").lower())} - _NOT_A_THING
    return frozenset(word for word in words if len(word) > 2)


def _cover(titles: Sequence[frozenset[str]], most: int, least_items: int) -> list[str]:
    """The categories in the order in which they were made."""
    chosen: list[str] = []
    left = list(titles)
    while len(chosen) < most:
        counts = Counter(word for found in left for word in found)
        if not counts:
            break
        word, count = min(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        if count < least_items:
            break
        chosen.append(word)
        left = [found for found in left if word not in found]
    return chosen


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is", "mas")):
        return word
    return word[:-2] if word.endswith(("xes", "ches", "shes", "sses")) else word[:-1]
