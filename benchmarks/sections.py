"""Pages that are part hand-written and part made: what stands between `<!-- NAME -->` and `<!-- /NAME -->` is made."""

import re
from collections.abc import Mapping


def replaced(text: str, sections: Mapping[str, str]) -> str:
    """`text` with these sections made anew.

    Raises:
        ValueError: the page has no marks of one of them.
    """
    for name, section in sections.items():
        pattern = re.compile(rf"(?<=<!-- {name} -->).*?(?=<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"the page has no marks of {name}")
        text = pattern.sub(section.replace("\\", r"\\"), text)
    return text
