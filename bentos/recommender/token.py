"""The token of the service: who may read what it logged and change what it shows."""

import hmac

from bentos.recommender.http import HttpProblem, Scope, header
from contracts.settings import Settings


def need_token(scope: Scope, settings: Settings) -> None:
    """
    Raises:
        HttpProblem: 401 without a bearer token, 403 with another one, or where the service has none.
    """
    if settings.token is None:
        raise HttpProblem(403, "this service has no token: set STREAMREC_TOKEN to open this address")
    given = header(scope, b"authorization")
    if given is None or not given.lower().startswith(b"bearer "):
        raise HttpProblem(401, "send `Authorization: Bearer TOKEN`", headers=[(b"www-authenticate", b"Bearer")])
    if not hmac.compare_digest(given[7:].strip(), settings.token.encode()):
        raise HttpProblem(403, "this is not the token of this service")
