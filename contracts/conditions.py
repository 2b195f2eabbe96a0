"""Which conditions on a request's context are taken, and how each is made to mean the same in GrowthBook's SDKs.

Context values are strings, and an attribute that a condition names and the request lacks means "not eligible". The
engine alone would not say so: `$ne`, `$nin` and `$not` hold for a missing attribute, and a missing one is 0 to `$lt`.
So a condition is checked when a policy, an experiment or a flag is made, and `guarded` adds what it implies. Operators
that only some SDKs know are refused.

Numbers: `$gt`, `$gte`, `$lt`, `$lte` with a number read the value as one; a value that is not a plain decimal number
(`45`, `-1.5`) counts as missing. Everything else compares strings; `$vgt` and its kin compare versions.
Absence: `{"attribute": {"$exists": false}}` alone asks for it. Where an attribute is named so, its other uses in that
condition each demand that it is there, instead of the condition as a whole.
"""

import math
import re
from collections.abc import Iterator
from re import _constants, _parser  # type: ignore[attr-defined]  # what a pattern compiles to, to find slow ones
from typing import Any

MAX_NODES, MAX_DEPTH, MAX_TEXT = 200, 8, 256
MAX_STEPS = 6e6  # of a pattern on the worst text: tens of milliseconds
NUMBER = r"^-?[0-9]+(\.[0-9]+)?(?![\s\S])"  # `$` would let a line end through in Python and not elsewhere

ORDER = frozenset({"$gt", "$gte", "$lt", "$lte"})
VERSION = frozenset({"$veq", "$vne", "$vgt", "$vgte", "$vlt", "$vlte"})
MEMBER = frozenset({"$in", "$nin", "$ini", "$nini"})
PATTERN = frozenset({"$regex", "$regexi"})
OPERATORS = ORDER | VERSION | MEMBER | PATTERN | {"$eq", "$ne", "$exists", "$not"}
JUNCTIONS = frozenset({"$and", "$or", "$nor"})

ABSENT = {"$exists": False}
PRESENT = {"$exists": True}


def checked(condition: dict[str, Any]) -> dict[str, Any]:
    """The condition itself.

    Raises:
        ValueError: it would never hold, always fail at request time, or could take long.
    """
    count = _check(condition, 0)
    if count > MAX_NODES:
        raise ValueError(f"a condition of {count} parts: at most {MAX_NODES}")
    return condition


def guarded(condition: dict[str, Any]) -> dict[str, Any]:
    """The same condition, false where an attribute that it names is missing or not the number that it should be."""
    if not condition:
        return {}
    uses: dict[str, _Use] = {}
    _collect(condition, uses)
    whole = [{name: _demand(use)} for name, use in sorted(uses.items()) if not use.absence]
    inner = _guard_leaves(condition, {name: use for name, use in uses.items() if use.absence})
    return {"$and": [*whole, inner]}


class _Use:
    """How a condition uses one attribute."""

    def __init__(self) -> None:
        self.number = False
        self.absence = False


def _demand(use: _Use) -> dict[str, Any]:
    return {**PRESENT, "$regex": NUMBER} if use.number else dict(PRESENT)


def _collect(condition: dict[str, Any], uses: dict[str, _Use]) -> None:
    for key, value in condition.items():
        if key in JUNCTIONS:
            for part in value:
                _collect(part, uses)
        elif key == "$not":
            _collect(value, uses)
        else:
            use = uses.setdefault(key, _Use())
            use.absence |= value == ABSENT
            use.number |= _is_number(value)


def _is_number(test: Any) -> bool:
    if not isinstance(test, dict):
        return False
    return any(
        (operator in ORDER and not isinstance(operand, str)) or (operator == "$not" and _is_number(operand))
        for operator, operand in test.items()
    )


def _guard_leaves(condition: dict[str, Any], absent: dict[str, _Use]) -> dict[str, Any]:
    """Each use of an attribute that may be absent, but the question for its absence, demands that it is there."""
    if not absent:
        return condition
    parts: list[dict[str, Any]] = []
    for key, value in condition.items():
        if key in JUNCTIONS:
            parts.append({key: [_guard_leaves(part, absent) for part in value]})
        elif key == "$not":
            parts.append({key: _guard_leaves(value, absent)})
        elif key in absent and value != ABSENT:
            parts.append({"$and": [{key: _demand(absent[key])}, {key: value}]})
        else:
            parts.append({key: value})
    return {"$and": parts}


def _check(condition: Any, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise ValueError(f"a condition nested over {MAX_DEPTH} deep")
    if not isinstance(condition, dict) or (depth and not condition):
        raise ValueError(f"a condition is an object with attributes or `$and`, `$or`, `$nor`, `$not`: {condition!r}")
    count = 0
    for key, value in condition.items():
        if key in JUNCTIONS:
            if not isinstance(value, list) or not value:
                raise ValueError(f"`{key}` takes a list of conditions")
            count += sum(_check(part, depth + 1) for part in value)
        elif key == "$not":
            count += _check(value, depth + 1)
        elif key.startswith("$"):
            raise ValueError(f"unknown operator `{key}`; `$and`, `$or`, `$nor`, `$not` join conditions")
        else:
            if not key or "." in key or len(key) > MAX_TEXT:
                raise ValueError(f"attribute `{key[:40]}`: keys of a context here are 1 to 256 characters without dots")
            count += _check_test(key, value, depth)
    return count


def _check_test(name: str, test: Any, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise ValueError(f"a condition nested over {MAX_DEPTH} deep")
    if not isinstance(test, dict):
        _check_string(name, "$eq", test)
        return 1
    if not test:
        raise ValueError(f"`{name}` is compared with nothing")
    if "$exists" in test and test["$exists"] is False and len(test) > 1:
        raise ValueError(f'`{name}`: {{"$exists": false}} stands alone; nothing else holds for what is not there')
    count = 0
    for operator, operand in test.items():
        if operator in ("$notRegex", "$notRegexi"):  # not every SDK has them
            raise ValueError(f'`{name}`: write {{"$not": {{"$regex{operator[9:]}": …}}}} for `{operator}`')
        if operator not in OPERATORS:
            raise ValueError(f"`{name}`: unknown operator `{operator}`; known: {', '.join(sorted(OPERATORS))}")
        count += 1
        if operator == "$not":
            if not isinstance(operand, dict) or "$exists" in operand:
                raise ValueError(f'`{name}`: `$not` takes an object with operators; for absence {{"$exists": false}}')
            count += _check_test(name, operand, depth + 1)
        elif operator == "$exists":
            if not isinstance(operand, bool):
                raise ValueError(f"`{name}`: `$exists` takes true or false")
        elif operator in MEMBER:
            if not isinstance(operand, list) or not operand or len(operand) > 10_000:
                raise ValueError(f"`{name}`: `{operator}` takes a list of 1 to 10,000 strings")
            for one in operand:
                _check_string(name, operator, one)
        elif operator in PATTERN:
            _check_string(name, operator, operand)
            _check_pattern(name, operand)
        elif operator in ORDER:
            _check_order(name, operator, operand)
        else:
            _check_string(name, operator, operand)
    return count


def _check_string(name: str, operator: str, operand: Any) -> None:
    if not isinstance(operand, str) or len(operand) > MAX_TEXT:
        raise ValueError(f"`{name}`: context values are strings, so `{operator}` takes one (at most 256 characters)")


def _check_order(name: str, operator: str, operand: Any) -> None:
    if isinstance(operand, str):
        _check_string(name, operator, operand)
        try:
            float(operand)
        except ValueError:
            return  # texts, such as ISO dates, in the order of their characters
        raise ValueError(f"`{name}`: `{operator}` compares numbers with a number: write {operand} without quotes")
    if isinstance(operand, bool) or not isinstance(operand, int | float) or not abs(operand) < 1e300:
        raise ValueError(f"`{name}`: `{operator}` takes a number or a string")


def _check_pattern(name: str, pattern: str) -> None:
    """Requests choose the text that it runs on, so a backtracking engine gets no pattern that a text can make slow."""
    try:
        parsed = _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"`{name}`: {pattern!r} is not a regular expression: {error}") from error
    try:
        choices = list(_choices(parsed, inside=False))
    except ValueError as error:
        raise ValueError(f"`{name}`: {pattern!r}: {error}") from error
    if parsed and parsed[0] != (_constants.AT, _constants.AT_BEGINNING):
        choices.append(MAX_TEXT)  # it is tried from each character on
    wide = [n for n in choices if n > 10]
    ways = min(math.prod(wide), math.comb(MAX_TEXT + len(wide), len(wide)))  # they share the characters of one text
    if ways * math.prod(n for n in choices if n <= 10) > MAX_STEPS:
        raise ValueError(f"`{name}`: {pattern!r} has too many open repeats; begin it with `^`, or use fewer")


def _choices(parsed: Any, *, inside: bool) -> Iterator[int]:
    """How many ways each repeat and alternative may go, on a text of `MAX_TEXT` characters.

    Raises:
        ValueError: a repeat inside a repeat, or what only a slow engine can do.
    """
    for operation, argument in parsed:
        if operation in (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT):
            least, most, body = argument
            if inside and most > 1:
                raise ValueError("a repeat inside a repeat can take minutes on a text made for it")
            if most > least:
                yield min(int(most), MAX_TEXT) - min(int(least), MAX_TEXT) + 1
            yield from _choices(body, inside=inside or most > 1)
        elif operation is _constants.SUBPATTERN:
            yield from _choices(argument[-1], inside=inside)
        elif operation is _constants.BRANCH:
            if inside:
                raise ValueError("alternatives inside a repeat can take minutes on a text made for it")
            yield len(argument[1])
            for branch in argument[1]:
                yield from _choices(branch, inside=inside)
        elif operation in SLOW:
            raise ValueError("look-around, back references and atomic groups are not taken")


SLOW = frozenset(
    {
        _constants.ASSERT,
        _constants.ASSERT_NOT,
        _constants.GROUPREF,
        _constants.GROUPREF_EXISTS,
        _constants.ATOMIC_GROUP,
    }
)
