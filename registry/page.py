"""The skeleton of every HTML page of ours: one file without a script or an outside resource, everything in it escaped.

Parts are `Markup`; any other value that becomes part of one is escaped on its way in, so that a title of an item or a
value of a slice stays what it is: words. What would get through all the same meets the page's content policy.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup, escape

# Nothing is fetched and nothing runs: styles of ours, pictures that are in the file.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = Markup("""
.streamrec{font:14px/1.5 system-ui,sans-serif;color:#1c2430;background:#fff;max-width:84em;margin:0 auto;padding:1.5em}
.streamrec h1{font-size:1.6em;margin:0 0 .3em}
.streamrec h2{font-size:1.2em;margin:2em 0 .5em;padding-top:.6em;border-top:1px solid #d9dee5}
.streamrec h3{font-size:1em;margin:1.4em 0 .3em}
.streamrec p{margin:.4em 0;max-width:60em}
.streamrec nav{margin:1.2em 0}
.streamrec nav a{margin-right:1em;white-space:nowrap}
.streamrec a{color:#0b5cad}
.streamrec .scroll{overflow-x:auto}
.streamrec table{border-collapse:collapse;margin:.5em 0}
.streamrec th,.streamrec td{padding:.2em .8em .2em 0;text-align:left;vertical-align:top;border-bottom:1px solid #e6e9ee}
.streamrec th{font-weight:600;color:#4a5563}
.streamrec .n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.streamrec .v{font-weight:600;white-space:nowrap}
.streamrec .v::before{content:"";display:inline-block;width:.7em;height:.7em;margin-right:.4em;border-radius:50%;
background:currentColor}
.streamrec .good{color:#17733b}
.streamrec .bad{color:#b3261e}
.streamrec .open{color:#8a6100}
.streamrec .bar{display:inline-block;height:.7em;background:#7aa7d6;vertical-align:baseline}
.streamrec .minus{background:#d98c84}
.streamrec img{max-width:100%;height:auto}
.streamrec .row{display:flex;flex-wrap:wrap;gap:1em}
.streamrec pre{background:#f4f6f8;padding:.7em 1em;overflow-x:auto}
.streamrec summary{cursor:pointer;color:#0b5cad}
@media print{.streamrec h2{break-after:avoid}.streamrec tr{break-inside:avoid}}
""")
TONES: Mapping[str, str] = {
    "pass": "good",
    "worth it": "good",
    "fail": "bad",
    "not worth it": "bad",
    "inconclusive": "open",
}
BAR_EM = 6.0
_LINE, _NOTHING = Markup("\n"), Markup("")
_WORDS_CELL, _NUMBER_CELL = Markup("<td>{}</td>"), Markup('<td class="n">{}</td>')
_NUMBER = re.compile(r"[+\-−]?[\d.,]+ ?(%|ms|µs|s|MB|kB)?( ?[±\[][\d., \]±]*)?|–|")


def page(title: str, *parts: Markup) -> str:
    """A whole document."""
    return Markup(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="{}"><title>{}</title></head>\n<body>{}</body></html>\n'
    ).format(POLICY, title, embedded(*parts))


def embedded(*parts: Markup) -> Markup:
    """The same inside somebody else's document."""
    return Markup('<style>{}</style><main class="streamrec">\n{}</main>').format(STYLE, joined(parts))


def joined(parts: Iterable[object], between: Markup = _LINE) -> Markup:
    return between.join(escape(part) for part in parts)


def heading(text: object, level: int = 2, anchor: str = "") -> Markup:
    """anchor: what `contents` leads to."""
    tag = f"h{level}"
    return Markup('<{} id="{}">{}</{}>').format(tag, anchor, text, tag) if anchor else element(tag, text)


def element(tag: str, *inside: object) -> Markup:
    return Markup("<{}>{}</{}>").format(tag, joined(inside, _NOTHING), tag)


def paragraph(*inside: object) -> Markup:
    return element("p", *inside)


def code(text: object) -> Markup:
    """A command, to be copied as it is."""
    return Markup("<pre><code>{}</code></pre>").format(text)


def contents(anchors: Mapping[str, str]) -> Markup:
    """anchor → words."""
    links = [Markup('<a href="#{}">{}</a>').format(anchor, words) for anchor, words in anchors.items()]
    return Markup("<nav>{}</nav>").format(joined(links))


def folded(summary: object, *parts: object) -> Markup:
    """What only some readers want, behind a click that needs no script."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, joined(parts))


def side_by_side(*parts: Markup) -> Markup:
    return Markup('<div class="row">{}</div>').format(joined(element("div", part) for part in parts))


def verdict(word: str | None) -> Markup:
    """A verdict's word with its colour; words that are none stay as they are."""
    return toned(word, TONES[word]) if word and word in TONES else escape(word or "")


def toned(words: object, tone: str) -> Markup:
    """tone: `good`, `bad`, `open`."""
    return Markup('<span class="v {}">{}</span>').format(tone, words)


def bar(value: float, top: float) -> Markup:
    """A length for the eye: `top` is the longest. A negative value has another colour."""
    if not (abs(value) < float("inf")) or not top > 0:
        return _NOTHING
    length = Markup("{:.2f}").format(BAR_EM * min(abs(value) / top, 1.0))
    return Markup('<span class="bar{}" style="width:{}em"></span>').format(" minus" if value < 0 else "", length)


def picture(image: bytes, alt: str, kind: str = "svg+xml") -> Markup:
    """A picture that is part of the file. As a picture, an SVG can run nothing, and its ids are its own."""
    data = base64.b64encode(image).decode()
    return Markup('<img alt="{}" src="data:image/{};base64,{}">').format(alt, kind, data)


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """Cells are words, numbers or `Markup`; what reads as a number stands to the right. None: an empty cell."""
    top = joined((Markup("<th>{}</th>").format(name) for name in head), _NOTHING)
    lines = (element("tr", *(_cell(cell) for cell in row)) for row in rows)
    return Markup('<div class="scroll"><table><thead><tr>{}</tr></thead>\n<tbody>{}</tbody></table></div>').format(
        top, joined(lines)
    )


def facts(pairs: Iterable[tuple[object, object]]) -> Markup:
    """Names and what they are, as a table without a head."""
    rows = (Markup("<tr><th>{}</th><td>{}</td></tr>").format(name, _words(value)) for name, value in pairs)
    return Markup('<div class="scroll"><table>{}</table></div>').format(joined(rows))


def _cell(value: object) -> Markup:
    words = _words(value)
    number = not isinstance(value, Markup) and _NUMBER.fullmatch(words) is not None
    return (_NUMBER_CELL if number else _WORDS_CELL).format(words)


def _words(value: object) -> str:
    """A value as it is told: numbers with separators and four digits that matter."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.4g}" if value == value else "–"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
