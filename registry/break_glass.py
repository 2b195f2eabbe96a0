"""`release rollback --break-glass`: a signed order to the gateways, for when controller and database are gone.

Written from the routing table alone; the controller adopts it into the control state when it is back.
"""

from contracts.errors import NotFound, Refused
from contracts.routing import BreakGlass, RoutingTable, Target
from registry.releases import machine
from registry.releases.values import ControlState, Rollback, Warm

KEPT_IDS = 10
WARM_US = 24 * 3600 * 1_000_000


def whom(table: RoutingTable | None) -> Target:
    """To whom everyone goes back: the champion of the release under way, or who was it before the last promotion.

    Raises:
        NotFound: there is no table. Refused: nobody to go back to.
    """
    if table is None:
        raise NotFound("there is no routing table that is signed with our key", next_command="streamrec status")
    if table.champion is None:
        raise Refused("the routing table has no champion to go back to", next_command="streamrec release start TAG")
    if table.release is not None:
        return table.champion
    if table.previous is None:
        raise Refused(
            f"no release is under way, and nobody but {table.champion.bento} is kept warm: nothing to go back to",
            next_command="streamrec release start TAG",
        )
    if table.previous.bento not in table.bentos:
        raise Refused(f"{table.previous.bento} is not up: nothing to go back to", next_command="streamrec status")
    return table.previous


def adopt(state: ControlState, order: BreakGlass, now_us: int) -> ControlState:
    """The state in which what gateways already do is the truth: no active release, and the order's champion.

    The database may know more than the table that the order was made from (a promotion that was committed and never
    routed): then two rollbacks lead there, or the champion is put back by hand.

    Raises:
        Refused: the order's rules document is not known; the order stays in force at the gateways.
    """
    reason = f"break-glass by {order.actor}: {order.reason}"
    for _ in range(2):
        if state.champion == order.champion and not (state.release and state.release.active):
            break
        try:
            state = machine.apply(state, Rollback(reason=reason), now_us, order.actor)
        except Refused:
            break
    if state.champion != order.champion:
        state = _put_back(state, order, now_us)
    adopted = tuple(i for i in state.adopted if i != order.id)[-KEPT_IDS + 1 :]
    return state.model_copy(update={"adopted": (*adopted, order.id)})


def _put_back(state: ControlState, order: BreakGlass, now_us: int) -> ControlState:
    if order.champion.rules is not None and order.champion.rules not in state.rules:
        raise Refused(
            f"order {order.id} names rules {order.champion.rules}, which the control database does not have",
            next_command="streamrec release start --rules FILE",
        )
    warm = tuple(w for w in state.warm if w.target not in (order.champion, state.champion))
    if state.champion is not None:
        warm = (*warm, Warm(target=state.champion, until_us=max(now_us, state.seen_us) + WARM_US))
    return state.model_copy(update={"champion": order.champion, "previous": None, "warm": warm})
