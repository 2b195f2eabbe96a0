"""schemathesis against /v1/openapi.json of a real gateway: to whatever is sent, an answer that the document names."""

import json
import tempfile
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from bentos.gateway import openapi
from tests.bearer import Bearer
from tests.integration.gateway.conftest import World

document = schemathesis.openapi.from_dict(json.loads(openapi.document()))
document.auth()(Bearer)


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
