import numpy as np

from training.evaluation.protocol import hold_out


def test_only_users_seen_in_training_with_a_new_item_are_asked() -> None:
    test = hold_out(
        train_users=np.array([0, 0, 1, 2]),
        train_items=np.array([0, 1, 1, 2]),
        # User 0: item 1 is old, item 3 is new. User 1: only an old item. User 3 and an unknown one: not in training.
        test_users=np.array([0, 0, 1, 3, -1]),
        test_items=np.array([1, 3, 1, 0, 0]),
        n_items=4,
    )
    assert test.users.tolist() == [0]
    assert test.targets.items.tolist() == [3]


def test_an_item_that_training_never_saw_is_a_target_that_counts_as_a_miss() -> None:
    test = hold_out(
        train_users=np.array([5]),
        train_items=np.array([0]),
        test_users=np.array([5, 5, 5]),
        test_items=np.array([1, 9, 9]),
        n_items=4,
    )
    assert test.users.tolist() == [5]
    assert test.targets.items.tolist() == [1, 9]
    assert test.n_items == 4


def test_nobody_to_ask_is_an_empty_test_set() -> None:
    nothing = np.empty(0, np.int64)
    test = hold_out(
        train_users=np.array([0]), train_items=np.array([0]), test_users=nothing, test_items=nothing, n_items=1
    )
    assert len(test) == 0
    assert test.targets.counts.tolist() == []


def test_a_sample_of_users_is_drawn_by_the_seed_and_keeps_their_targets() -> None:
    test = hold_out(
        train_users=np.arange(50),
        train_items=np.zeros(50, np.int64),
        test_users=np.arange(50),
        test_items=np.arange(50) + 100,
        n_items=200,
    )
    some = test.sample(8, 3)
    assert some.users.tolist() == test.sample(8, 3).users.tolist() != test.sample(8, 4).users.tolist()
    assert len(some) == 8
    assert (some.targets.items == some.users + 100).all()
    assert test.sample(50, 3) is test
