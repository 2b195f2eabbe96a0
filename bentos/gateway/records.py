"""What an answer leaves behind, off the response path: one exposure, and an attempt for each call to a variant."""

from msgspec.structs import replace

from bentos.gateway.answer import Given, Try
from contracts.attempts import Attempt, Compared
from contracts.exposures import Exposure, Versions
from contracts.http import RecommendationRequest, RecommendationResponse
from contracts.routing import ReleaseRoute

NOTHING = Versions(bento="", retrieval="", ranking="", fallback="", rules="")


def exposure(given: Given) -> Exposure:
    """Assigned and served; `experiments` is empty where a tester forced the variant: that is no evidence."""
    answer, assigned = given.answer, given.assigned
    found = given.source
    versions = (found and found.versions) or replace(NOTHING, bento=answer.bento)
    front = found.front if found else None
    return Exposure(
        request_id=answer.request_id,
        timestamp_us=given.began_us,
        clock_us=front.clock_us if front else given.began_us,
        unit=assigned.unit,
        user_id=answer.user_id,
        assigned=assigned.variant,
        served=answer.variant,
        probability=assigned.probability,
        exploration=False,
        slate_propensity=None,
        outcome="ok" if answer.items else "error" if given.unserved else "empty",
        degradation=answer.degradation,
        item_ids=[item.item_id for item in answer.items],
        versions=replace(versions, routing_table=given.routes.name),
        experiments={} if assigned.forced else dict(assigned.experiments),
        batch_age_s=answer.batch_age_s,
        states=front.states if front else None,
    )


def attempt(
    made: Try,
    request: RecommendationRequest,
    request_id: str,
    unit: str,
    release: ReleaseRoute | None,
    *,
    shadow: bool = False,
    forced: bool = False,
    compared: Compared | None = None,
) -> Attempt:
    answer = made.answer
    items = answer.items if answer else []
    scores = [item.score for item in items]
    return Attempt(
        request_id=request_id,
        timestamp_us=made.began_us,
        unit=unit,
        user_id=request.user_id,
        variant=made.variant,
        shadow=shadow,
        bento=made.bento,
        release=release.id if release else "",
        step=release.step if release else "",
        outcome=made.outcome,
        status=made.status,
        ms=round(made.ms, 3),
        degradation=answer.degradation if answer else None,
        n_items=len(items),
        k=request.k,
        score_min=min(scores, default=None),
        score_max=max(scores, default=None),
        schema_ok=not made.broken,
        forced=forced,
        context=request.context,
        panel=panel(request, answer),
        compared=compared,
    )


def panel(request: RecommendationRequest, answer: RecommendationResponse | None) -> list[str]:
    """Edge cases: what the Bento says of the request, and what can be seen from here."""
    found = list(answer.front.panel) if answer and answer.front else []
    if not request.context and "no_context" not in found:
        found.append("no_context")
    return found
