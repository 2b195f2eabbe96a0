"""Testers' passes: a signed `contracts.routing.Pass` in the header `x-streamrec-pass`.

A pass is a bearer: who has it may use it until it is over. It changes what its holder sees and counts as no evidence.
"""

from collections import OrderedDict

from pydantic import ValidationError

from contracts.errors import Refused
from contracts.routing import MAX_PASS_BYTES, Pass
from contracts.signing import Verifier

HEADER = b"x-streamrec-pass"
REMEMBERED = 256
AGAIN = "ask whoever made the pass for a new one"


class BadPass(Refused):
    """Not a pass of ours, or one that is over: 403."""


class PassReader:
    """Keeps the last good passes, so that a signature is verified once and not per request."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._known: OrderedDict[str, Pass] = OrderedDict()

    def open(self, token: str, now_us: int) -> Pass:
        """
        Raises:
            BadPass: too long, not signed by our key, not a pass, or over.
        """
        known = self._known.get(token)
        if known is None:
            known = self._read(token)
            self._known[token] = known
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        if now_us >= known.expires_us:
            raise BadPass(f"the pass {known.name or 'without a name'} is over", next_command=AGAIN)
        return known

    def _read(self, token: str) -> Pass:
        if len(token) > MAX_PASS_BYTES:
            raise BadPass(f"a pass of {len(token)} characters: at most {MAX_PASS_BYTES}", next_command=AGAIN)
        try:
            return Pass.model_validate_json(self._verifier.open_token(token))
        except Refused as error:
            raise BadPass(f"the pass is {error.message}", next_command=AGAIN) from error
        except ValidationError as error:
            raise BadPass("the signed text is not a pass", next_command=AGAIN) from error
