"""Who gets the controller's lease, as a pure function: both stores use it."""

from registry.control.store import Lease


def granted(held: Lease | None, holder: str, ttl_s: float, now_us: int) -> tuple[Lease | None, Lease]:
    """(what `holder` gets, what is stored). A new holder gets a greater epoch.

    A lease that seems to last longer than any lease can is one whose holder's clock was ahead, or ours jumped back: it
    is cut to `ttl_s` from now, once, so that it runs out.
    """
    ttl_us = int(ttl_s * 1e6)
    if held is None:
        mine = Lease(holder, 1, now_us + ttl_us)
        return mine, mine
    if held.holder == holder:  # also after it ran out: nobody else has had it since
        mine = Lease(holder, held.epoch, now_us + ttl_us)
        return mine, mine
    if held.until_us <= now_us:
        mine = Lease(holder, held.epoch + 1, now_us + ttl_us)
        return mine, mine
    return None, Lease(held.holder, held.epoch, min(held.until_us, now_us + ttl_us))
