"""Categories for a catalogue that has none: the product word of each title, by a greedy cover.

The word that stands in most titles that have no category yet becomes the next category and takes those titles, until
enough categories are made or none would be large enough; the rest is `other`. No randomness, no model, and each name
says why an item is in it. It reads titles only, never who bought what.
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


def by_title(titles: Sequence[str | None], *, most: int = 150, least_items: int = 6) -> list[str]:
    """One category a title, in order. `most`: categories besides `other`; `least_items`: the smallest one made."""
    words = [{_singular(w) for w in _WORD.findall((title or "").lower())} - _NOT_A_THING for title in titles]
    words = [{w for w in found if len(w) > 2} for found in words]
    category = [OTHER] * len(titles)
    open_rows = set(range(len(titles)))
    while most > 0:
        counts = Counter(word for row in open_rows for word in words[row])
        if not counts:
            break
        word, count = min(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        if count < least_items:
            break
        taken = {row for row in open_rows if word in words[row]}
        for row in taken:
            category[row] = word
        open_rows -= taken
        most -= 1
    return category


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is", "mas")):
        return word
    return word[:-2] if word.endswith(("xes", "ches", "shes", "sses")) else word[:-1]
