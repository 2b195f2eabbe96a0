"""schemathesis against /v1/openapi.json of a real worker: to whatever is sent, an answer that the document names."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from bentos.recommender import openapi
from tests.bearer import Bearer
from tests.serving_processes import free_port, running

document = schemathesis.openapi.from_dict(json.loads(openapi.document()))
document.auth()(Bearer)


@pytest.fixture(scope="module")
def served(world, tmp_path_factory):
    port = free_port()
    command = ["-m", "bentos.recommender.worker", "--bundles", str(world), "--port", str(port), "--drain-s", "0"]
    with running(command, tmp_path_factory.mktemp("home"), world, url=f"http://127.0.0.1:{port}") as served:
        yield served


@document.parametrize()
@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_of_the_document(case, served):
    case.call_and_validate(
        base_url=served.url,
        # No schema says that a time may be five minutes ahead, or that 75.0 is not a whole number here.
        excluded_checks=[positive_data_acceptance],
    )
