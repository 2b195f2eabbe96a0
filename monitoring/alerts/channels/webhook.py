"""Alerts as signed POSTs to one URL.

    x-streamrec-key        the idempotency key: a receiver counts each once
    x-streamrec-timestamp  seconds since the epoch, when this try was made
    x-streamrec-signature  sha256=HMAC-SHA256(secret, "TIMESTAMP.BODY"), in hex (RFC 2104)

A receiver compares in constant time, refuses what is older than `TOO_OLD_S`, and answers with a 2xx itself: a redirect
is not followed, since what would follow is a GET without the message. Ed25519, as `contracts/signing.py` has it, would
spare the shared secret, and few receivers know it.
"""

import hashlib
import hmac
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from threading import Thread
from typing import IO

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from contracts.errors import Refused, Unreachable
from monitoring.alerts.channels.base import SEND_S, Message

TIMEOUT_S = 2.0  # of one step of a try: to connect, to read a line of the answer
TRIES = 3
TOO_OLD_S = 300


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        """None: the answer stays what it is, an error of its status."""


class WebhookChannel:
    """
    Args:
        send_s: all of a send, with the look-up of the name, which has no timeout of its own.
    """

    name = "webhook"

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        clock_s: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        send_s: float = SEND_S,
    ) -> None:
        self._url, self._secret = url, secret
        self._clock_s, self._sleep, self._send_s = clock_s, sleep, send_s
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._under_way: Thread | None = None

    def send(self, message: Message) -> None:
        """Tried a few times within seconds, with growing pauses that differ; the outbox tries again for days.

        Raises:
            Unreachable: nobody answers in time, or with a 5xx, 408 or 429. Refused: any other answer that is no 2xx.
        """
        if self._under_way is not None and self._under_way.is_alive():
            raise Unreachable("the webhook has not answered the last send yet")
        body = json.dumps(asdict(message), allow_nan=False, separators=(",", ":")).encode()
        failed: list[Exception] = []

        def tries() -> None:
            try:
                self._tries(message.key, body)
            except Exception as error:
                failed.append(error)

        # Whatever it hangs in, it is waited for no longer than that, and nothing is sent beside it.
        self._under_way = Thread(target=tries, name="webhook", daemon=True)
        self._under_way.start()
        self._under_way.join(self._send_s)
        if self._under_way.is_alive():
            raise Unreachable(f"the webhook did not answer within {self._send_s:g} s")
        if failed:
            raise failed[0]

    def _tries(self, key: str, body: bytes) -> None:
        for attempt in Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, Unreachable)),
            stop=stop_after_attempt(TRIES),
            wait=wait_exponential_jitter(multiplier=0.2, max=2.0),
            sleep=self._sleep,
            reraise=True,
        ):
            with attempt:
                self._post(key, body)

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
            self._opener.open(request, timeout=TIMEOUT_S).close()
        except urllib.error.HTTPError as error:
            with error:
                if error.code >= 500 or error.code in (408, 429):
                    raise Unreachable(f"the webhook answers {error.code}") from error
                raise Refused(f"the webhook answers {error.code}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the webhook does not answer: {error!r}") from error


def signature(secret: str, timestamp: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def verify(secret: str, timestamp: str, body: bytes, signed: str, now_s: float) -> bool:
    """For a receiver: ours, and of now."""
    try:
        fresh = abs(now_s - int(timestamp)) <= TOO_OLD_S
    except ValueError:
        return False
    return fresh and hmac.compare_digest(signature(secret, timestamp, body), signed)
