"""schemathesis against /v1/openapi.json of a real gateway: to whatever is sent, an answer that the document names."""

import json
import tempfile
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from bentos.gateway import openapi
from tests.integration.gateway.conftest import TOKEN, World

document = schemathesis.openapi.from_dict(json.loads(openapi.document()))


@document.auth()
class Bearer:
    """Also lets schemathesis see that nothing is open without the token."""

    def get(self, case, context):
        return f"Bearer {TOKEN}"

    def set(self, case, data, context):
        case.headers["authorization"] = data


@pytest.fixture(scope="module")
def gateway():
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        world = World(Path(folder))
        try:
            world.stub("alpha")
            world.write()
            world.start()
            yield world
        finally:
            world.close()


@document.parametrize()
@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_of_the_document(case, gateway):
    case.call_and_validate(
        base_url=gateway.url,
        excluded_checks=[positive_data_acceptance],  # see the Bento's
    )
