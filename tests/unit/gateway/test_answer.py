"""The path of a request, over Bentos that are functions."""

import asyncio
import itertools
import time

import msgspec
import pytest

from bentos.gateway.answer import Answering, Ask
from bentos.gateway.http_client import Reply
from bentos.gateway.last_resort import LastResort, Popular
from bentos.gateway.records import attempt, exposure
from bentos.gateway.routes import Alone, Routes
from bentos.gateway.upstream import Address, Failed, Upstreams
from bentos.recommender.breaker import Breaker, BreakerPolicy
from contracts.http import RecommendationRequest, RecommendedItem
from contracts.routing import ReleaseRoute, RoutingTable, Target, Upstream
from contracts.rules import RulesDocument

RULES = RulesDocument(version="other")
IDS = itertools.count()


class Fixed:
    def __init__(self, **fields):
        self.fields = fields

    def assign(self, user_id, context, tester=None):
        return Alone(user_id, **self.fields)


def slate(name, request_id, items=3):
    listed = [{"item_id": f"{name}{n}", "score": 1 - n / 10, "position": n + 1, "sources": []} for n in range(items)]
    versions = {"bento": name, "retrieval": "r", "ranking": "k", "fallback": "f", "rules": "x"}
    return {
        "request_id": request_id,
        "user_id": "u1",
        "items": listed,
        "degradation": "full",
        "ranked_by": "dcn",
        "bento": name,
        "versions": versions,
    }


class World:
    """`does[bento]`: what its addresses do, given (address, headers, seconds)."""

    def __init__(self, tmp_path, monkeypatch, variant="champion", champion_urls=1, candidate=None, **assigned):
        self.does, self.calls = {}, []
        self.resort = LastResort(tmp_path / "p.json")
        self.upstreams = Upstreams()
        tags = {"champ": champion_urls, "cand": 1}
        bentos = {tag: Upstream(urls=tuple(f"unix:/{tag}-{n}" for n in range(many))) for tag, many in tags.items()}
        release = ReleaseRoute(id="r1", step="s", candidate=candidate or Target(bento="cand"), weight=50)
        self.table = RoutingTable(
            epoch=1,
            version=1,
            written_at="",
            champion=Target(bento="champ"),
            bentos=bentos,
            release=release,
            rules={RULES.digest: RULES},
        )
        self.upstreams.apply(bentos)
        self.routes = Routes(self.table, Fixed(variant=variant, **assigned))
        self.answering = Answering(self.upstreams, self.resort, "key")

        async def post(address, path, body, headers, timeout_s, hurried=False):
            self.calls.append((address.url, dict(headers), timeout_s))
            name = address.url.removeprefix("unix:/").partition("-")[0]
            return await self.does.get(name, answers)(address, headers, timeout_s)

        monkeypatch.setattr(Address, "post", post)

    def ask(self, hurried=False, **fields):
        request = RecommendationRequest("u1", **{"k": 3, **fields})
        ask = Ask(request, b"{}", f"q{next(IDS)}", 0, time.monotonic() + 0.2, hurried=hurried)
        return asyncio.run(self.answering.answer(self.routes, ask))


async def answers(address, headers, timeout_s, items=3):
    name = address.url.removeprefix("unix:/").partition("-")[0]
    return Reply(200, msgspec.json.encode(slate(name, headers["x-request-id"], items)))


async def empty(address, headers, timeout_s):
    return await answers(address, headers, timeout_s, items=0)


async def fails(address, headers, timeout_s):
    return Reply(500, b"")


async def late(address, headers, timeout_s):
    raise Failed("late", late=True)


async def refused(address, headers, timeout_s):
    raise Failed("refused", dead=True, refused=True)


@pytest.fixture
def world(tmp_path, monkeypatch):
    return lambda **fields: World(tmp_path, monkeypatch, **fields)


def outcomes(given):
    return [(t.variant, t.outcome) for t in given.tries]


def test_the_assigned_variant_answers(world):
    for variant, bento in (("champion", "champ"), ("control", "champ"), ("candidate", "cand")):
        given = world(variant=variant).ask()
        assert (given.answer.variant, given.answer.bento) == (variant, bento)
        assert outcomes(given) == [(variant, "ok")]


@pytest.mark.parametrize(("does", "outcome"), [(fails, "error"), (late, "late"), (refused, "error")])
def test_a_candidate_that_does_not_answer_goes_to_the_champion(world, does, outcome):
    here = world(variant="candidate")
    here.does["cand"] = does
    given = here.ask()
    assert given.answer.variant == "champion"
    assert outcomes(given) == [("candidate", outcome), ("champion", "ok")]
    logged = exposure(given)
    assert (logged.assigned, logged.served, logged.outcome) == ("candidate", "champion", "ok")
    assert logged.versions.routing_table == "1.1"


def test_both_arms_are_told_the_same_time_and_the_champion_what_is_left(world):
    told = {}
    for variant in ("candidate", "control", "champion"):
        here = world(variant=variant)
        here.ask()
        told[variant] = float(here.calls[0][1]["x-streamrec-deadline-ms"])
    assert told["candidate"] == pytest.approx(told["control"], abs=5)
    assert told["candidate"] == pytest.approx(0.6 * 200 * 0.95, abs=8)
    assert told["champion"] == pytest.approx(200 * 0.95, abs=8)


def test_an_empty_slate_of_the_candidate_is_an_answer_but_the_user_gets_the_champions(world):
    here = world(variant="candidate")
    here.does["cand"] = empty
    given = here.ask()
    assert outcomes(given) == [("candidate", "ok"), ("champion", "ok")]
    assert (given.answer.variant, len(given.answer.items)) == ("champion", 3)
    record = attempt(given.tries[0], RecommendationRequest("u1"), "q", "u1", here.table.release)
    assert (record.outcome, record.n_items, record.schema_ok, record.score_max) == ("ok", 0, True, None)


def test_an_empty_slate_of_the_champion_stands_and_is_not_asked_for_twice(world):
    for variant in ("champion", "control"):
        here = world(variant=variant)
        here.resort.popular = Popular("champ", 0, [RecommendedItem("p", 1.0, 1, [])])
        here.does["champ"] = empty
        given = here.ask()
        assert outcomes(given) == [(variant, "ok")]
        assert given.answer.items == []
        assert exposure(given).outcome == "empty"


def test_an_empty_candidate_and_a_failing_champion_give_the_last_resort_or_else_the_empty_slate(world):
    here = world(variant="candidate")
    here.does |= {"cand": empty, "champ": fails}
    given = here.ask()
    assert (given.answer.variant, given.unserved) == ("candidate", False)
    here.resort.popular = Popular("champ", 0, [RecommendedItem("p", 1.0, 1, [])])
    given = here.ask()
    assert (given.answer.variant, given.answer.degradation) == ("fallback", "popularity")


def test_all_down_is_unserved_and_logged_as_an_error(world):
    here = world(variant="candidate")
    here.does |= {"cand": fails, "champ": late}
    given = here.ask()
    assert given.unserved
    logged = exposure(given)
    assert (logged.assigned, logged.served, logged.outcome, logged.item_ids) == ("candidate", "fallback", "error", [])


def test_a_refused_address_is_not_tried_again_and_the_next_one_answers(world):
    here = world(champion_urls=3)

    async def first_refuses(address, headers, timeout_s):
        does = refused if address.url.endswith("-0") else answers
        return await does(address, headers, timeout_s)

    here.does["champ"] = first_refuses
    given = here.ask()
    assert given.answer.variant == "champion"
    assert [url for url, _, _ in here.calls] == ["unix:/champ-0", "unix:/champ-1"]
    assert outcomes(given) == [("champion", "error"), ("champion", "ok")]  # both are on record


def test_a_connection_that_is_cut_again_and_again_is_given_up(world):
    here = world()

    async def cut(address, headers, timeout_s):
        raise Failed("cut", dead=True)

    here.does["champ"] = cut
    assert len(here.ask().tries) == 3


def test_an_open_breaker_is_not_asked_and_is_no_failure_of_the_variant(world):
    here = world(variant="candidate")
    breaker = here.routes.breakers[Target(bento="cand")] = Breaker(BreakerPolicy(consecutive=1, open_s=60))
    breaker.bad(breaker.allow(time.monotonic()), time.monotonic())
    given = here.ask()
    assert outcomes(given) == [("candidate", "open"), ("champion", "ok")]
    assert [url for url, _, _ in here.calls] == ["unix:/champ-0"]


def test_a_caller_that_gives_up_says_nothing_of_the_variant(world):
    here = world()
    breaker = here.routes.breakers[Target(bento="champ")]

    async def hangs(address, headers, timeout_s):
        await asyncio.sleep(10)

    here.does["champ"] = hangs

    async def main():
        ask = Ask(RecommendationRequest("u1"), b"{}", "q", 0, time.monotonic() + 5)
        for _ in range(10):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.005):
                    await here.answering.answer(here.routes, ask)

    asyncio.run(main())
    assert breaker.state == "closed"


def test_consumers_in_a_hurry_do_not_shut_a_variant_to_the_others(world):
    here = world()
    here.does["champ"] = late
    state = lambda: here.routes.breakers[Target(bento="champ")].state  # noqa: E731
    for _ in range(10):
        assert outcomes(here.ask(hurried=True)) == [("champion", "late")]
    assert state() == "closed"
    for _ in range(5):
        here.ask()
    assert state() == "open"


def test_rules_of_the_target_and_of_an_experiment_travel_as_a_whole_document(world):
    here = world(variant="candidate", candidate=Target(bento="champ", rules=RULES.digest))
    here.ask()
    sent = msgspec.json.decode(here.calls[0][1]["x-streamrec-overrides"])
    assert RulesDocument.model_validate(sent["rules"]).digest == RULES.digest
    here = world(sources_off=("graph",))
    here.ask()
    assert msgspec.json.decode(here.calls[0][1]["x-streamrec-overrides"]) == {"sources_off": ["graph"]}
    here = world()
    here.ask()
    assert "x-streamrec-overrides" not in here.calls[0][1]
    assert here.calls[0][1]["x-streamrec-front"] == "key"


def test_what_was_shown_is_kept_for_the_day_when_nobody_answers(world):
    here = world()
    shown = here.ask().answer
    here.does["champ"] = fails
    again = here.ask().answer
    assert (again.variant, again.degradation) == ("fallback", "cached")
    assert [i.item_id for i in again.items] == [i.item_id for i in shown.items]


def test_a_forced_variant_leaves_no_evidence_and_no_slate(world):
    here = world(variant="candidate", forced=True, experiments={"r1": "candidate"})
    given = here.ask()
    assert exposure(given).experiments == {}
    assert not len(here.resort.slates)


def test_breakers_of_targets_that_stay_go_on_under_a_new_table(world):
    here = world()
    after = Routes(here.table.model_copy(update={"version": 2}), Fixed(), here.routes)
    assert after.breakers[Target(bento="champ")] is here.routes.breakers[Target(bento="champ")]
    gone = Routes(here.table.model_copy(update={"release": None}), Fixed(), after)
    assert set(gone.breakers) == {Target(bento="champ")}


def test_the_share_of_the_shadow_is_by_request(world):
    from bentos.recommender.request_ids import new_request_id

    table = world().table
    release = table.release.model_copy(update={"shadow": 30.0})
    routes = Routes(table.model_copy(update={"release": release}), Fixed())
    found = sum(routes.mirrors(new_request_id()) for _ in range(20_000))
    assert abs(found - 6_000) < 3 * (20_000 * 0.3 * 0.7) ** 0.5  # 3 σ
