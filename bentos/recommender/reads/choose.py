"""Which guard a store gets."""

from bentos.recommender.breaker import Breaker, dependency
from bentos.recommender.reads.base import UserReads
from bentos.recommender.reads.local import LocalReads
from bentos.recommender.reads.remote import RemoteReads
from contracts.settings import Settings
from features.online.base import OnlineStore
from features.online.open import over_network


def user_reads(settings: Settings, store: OnlineStore, replica: OnlineStore | None = None) -> UserReads:
    policy = dependency(settings.breaker_open_s)
    if over_network(settings.online_store):
        return RemoteReads(store, replica, limit_s=settings.features_budget_ms / 1e3, policy=policy)
    return LocalReads(store, Breaker(policy))
