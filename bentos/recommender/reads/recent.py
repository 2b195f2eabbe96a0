"""What was read of a user a moment ago. Pure: the clock is an argument."""

from collections import OrderedDict

from features.online.base import UserState


class Recent:
    """States for at most `keep_s` after they were asked for; of `capacity` users, the longest unused goes."""

    def __init__(self, keep_s: float = 0.5, capacity: int = 2_000) -> None:
        self._keep_s = keep_s
        self._capacity = capacity
        self._states: OrderedDict[str, tuple[float, UserState]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def get(self, user_id: str, now: float) -> UserState | None:
        found = self._states.get(user_id)
        if found is None:
            return None
        asked, state = found
        if not 0 <= now - asked < self._keep_s:
            del self._states[user_id]
            return None
        self._states.move_to_end(user_id)
        return state

    def put(self, user_id: str, asked: float, state: UserState) -> None:
        """asked: when the read began, as it may show a state from then."""
        self._states[user_id] = (asked, state)
        self._states.move_to_end(user_id)
        if len(self._states) > self._capacity:
            self._states.popitem(last=False)

    def forget(self, user_id: str) -> None:
        self._states.pop(user_id, None)
