"""What an assignment costs: `python -m benchmarks.assignment`. Microseconds, the best of 7 rounds over 4,000 users.

`sdk` is the GrowthBook SDK over the same features, one instance with new attributes for each request.
"""

import timeit
from collections.abc import Callable

from growthbook import GrowthBook

from bentos.gateway.assignment import Assigner, features_of
from bentos.gateway.hashing import gbhash_many
from bentos.gateway.passes import PassReader
from contracts.routing import ExperimentRoute, Flag, Overrides, Pass, ReleaseRoute, RoutingTable, Target, Upstream
from contracts.signing import Signer

USERS = [f"user-{i}" for i in range(4000)]
CONTEXT = {"country": "DE", "device": "phone", "tenure": "45", "app_version": "1.2.3"}
OLD, NEW = Target(bento="streamrec:old"), Target(bento="streamrec:new")
UP = {t.bento: Upstream(urls=("http://127.0.0.1:1",)) for t in (OLD, NEW)}
OFF, GERMANY = Overrides(sources_off=("graph",)), {"country": "DE"}
RELEASE = ReleaseRoute(id="r-20260102T030405-1a2b3c", step="canary", candidate=NEW, weight=25, condition=GERMANY)
EXPERIMENTS = tuple(
    ExperimentRoute(id=f"experiment-{i}", treatment=OFF, condition=GERMANY, slot=(i / 5, (i + 1) / 5)) for i in range(5)
)
FLAGS = tuple(Flag(id=f"flag-{i}", on=OFF, coverage=0.5, condition=GERMANY) for i in range(5))
EMPTY = RoutingTable(epoch=1, version=1, written_at="", champion=OLD, bentos=UP)
TABLES = {
    "no release": EMPTY,
    "a release": EMPTY.model_copy(update={"release": RELEASE}),
    "a release, 5 experiments, 5 flags": EMPTY.model_copy(
        update={"release": RELEASE, "experiments": EXPERIMENTS, "flags": FLAGS}
    ),
}


def main() -> None:
    for name, table in TABLES.items():
        print(f"{name:36} {_ours(table):7.1f} µs   sdk {_sdk(table):7.1f} µs")
    units = [f"user-{i}" for i in range(100_000)]
    print(f"{'hash of 100,000 units':36} {_best(lambda: gbhash_many('release-1', units), 1) / 1000:7.1f} ms")
    signer = Signer.make()
    token = signer.token(Pass(variant="candidate", expires_us=2).model_dump_json())
    reader = PassReader(signer.verifier)
    print(f"{'a pass, known':36} {_best(lambda: reader.open(token, 1), 1000) / 1000:7.2f} µs")
    print(f"{'a pass, new':36} {_best(lambda: PassReader(signer.verifier).open(token, 1), 100) / 100:7.1f} µs")


def _ours(table: RoutingTable) -> float:
    assigner = Assigner(table)
    return _best(lambda: [assigner.assign(user, CONTEXT) for user in USERS], 1) / len(USERS)


def _sdk(table: RoutingTable) -> float:
    features = features_of(table)
    engine = GrowthBook(features=features)

    def evaluate() -> None:
        for user in USERS:
            engine.set_attributes({**CONTEXT, "user_id": user})
            for key in features:
                engine.eval_feature(key)

    return _best(evaluate, 1) / len(USERS)


def _best(call: Callable[[], object], number: int) -> float:
    """Microseconds of `number` calls."""
    return min(timeit.repeat(call, number=number, repeat=7)) * 1e6


if __name__ == "__main__":
    main()
