"""Alerts as signed POSTs to one URL.

    x-streamrec-key        the idempotency key: a receiver counts each once
    x-streamrec-timestamp  seconds since the epoch, when this try was made
    x-streamrec-signature  sha256=HMAC-SHA256(secret, "TIMESTAMP.BODY"), in hex (RFC 2104)

A receiver compares in constant time and refuses what is older than `TOO_OLD_S`. Ed25519, as `contracts/signing.py` has
it, would spare the shared secret, and few receivers know it.
"""

import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from contracts.errors import Refused, Unreachable
from monitoring.alerts.channels.base import Message

TIMEOUT_S = 5.0
TRIES = 3
TOO_OLD_S = 300


class WebhookChannel:
    name = "webhook"

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        clock_s: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url, self._secret = url, secret
        self._clock_s, self._sleep = clock_s, sleep

    def send(self, message: Message) -> None:
        """Tried a few times within seconds, with growing pauses that differ; the outbox tries again for days.

        Raises:
            Unreachable: nobody answers, or with a 5xx, 408 or 429. Refused: any other answer that is no 2xx.
        """
        body = json.dumps(asdict(message), allow_nan=False, separators=(",", ":")).encode()
        for attempt in Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, Unreachable)),
            stop=stop_after_attempt(TRIES),
            wait=wait_exponential_jitter(multiplier=0.2, max=2.0),
            sleep=self._sleep,
            reraise=True,
        ):
            with attempt:
                self._post(message.key, body)

    def _post(self, key: str, body: bytes) -> None:
        at = str(int(self._clock_s()))
        request = urllib.request.Request(  # noqa: S310 - the operator's own setting, http or https
            self._url,
            data=body,
            method="POST",
            headers={
                "content-type": "application/json",
                "x-streamrec-key": key,
                "x-streamrec-timestamp": at,
                "x-streamrec-signature": signature(self._secret, at, body),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                answer.read()
        except urllib.error.HTTPError as error:
            with error:
                if error.code >= 500 or error.code in (408, 429):
                    raise Unreachable(f"the webhook answers {error.code}") from error
                raise Refused(f"the webhook answers {error.code}") from error
        except OSError as error:
            raise Unreachable(f"the webhook does not answer: {error}") from error


def signature(secret: str, timestamp: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def verify(secret: str, timestamp: str, body: bytes, signed: str, now_s: float) -> bool:
    """For a receiver: ours, and of now."""
    try:
        fresh = abs(now_s - int(timestamp)) <= TOO_OLD_S
    except ValueError:
        return False
    return fresh and hmac.compare_digest(signature(secret, timestamp, body), signed)
