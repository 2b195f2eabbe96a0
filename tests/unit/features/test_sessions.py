from hypothesis import given
from hypothesis import strategies as st

from features.sessions import SESSION_GAP_US, Session, add_event

MINUTE = 60_000_000


def fold(*minutes: float) -> tuple[Session, ...]:
    sessions: tuple[Session, ...] = ()
    for minute in minutes:
        sessions = add_event(sessions, int(minute * MINUTE))
    return sessions


def test_a_pause_of_thirty_minutes_is_within_a_session_and_a_longer_one_ends_it() -> None:
    assert fold(0, 30) == (Session(0, 30 * MINUTE, 2),)
    assert fold(0, 30.001) == (Session(30 * MINUTE + 60_000, 30 * MINUTE + 60_000, 1), Session(0, 0, 1))


def test_a_late_event_joins_the_sessions_that_it_lies_between() -> None:
    assert len(fold(0, 40)) == 2
    assert fold(0, 40, 20) == (Session(0, 40 * MINUTE, 3),)


def test_a_session_is_open_as_long_as_another_event_would_belong_to_it() -> None:
    session = Session(0, 10 * MINUTE, 4)
    assert session.open_at(40 * MINUTE)
    assert not session.open_at(40 * MINUTE + 1)
    assert session.length_us == 10 * MINUTE


def test_only_the_newest_eight_are_kept() -> None:
    assert [s.start_us // MINUTE for s in fold(*range(0, 900, 100))] == list(range(800, 0, -100))
    assert fold(*range(0, 900, 100), 0) == fold(*range(0, 900, 100))


@given(st.permutations([0, 5, 25, 50, 90, 119, 121, 155, 160]))
def test_any_order_of_arrival_gives_the_same_sessions(minutes: list[int]) -> None:
    assert fold(*minutes) == fold(*sorted(minutes))


@given(st.lists(st.integers(0, 100 * MINUTE), min_size=1, max_size=40))
def test_sessions_are_the_runs_between_long_pauses(moments: list[int]) -> None:
    """Against the textbook definition: sort, cut where the pause is longer than the gap."""
    runs: list[list[int]] = []
    for at in sorted(moments):
        if runs and at - runs[-1][-1] <= SESSION_GAP_US:
            runs[-1].append(at)
        else:
            runs.append([at])
    folded: tuple[Session, ...] = ()
    for at in moments:
        folded = add_event(folded, at)
    assert folded == tuple(Session(r[0], r[-1], len(r)) for r in reversed(runs))[:8]
