"""Requests made from the service's own description, valid and not: it answers as it says."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from retrieval import server

SCHEMA = schemathesis.openapi.from_asgi(
    "/openapi.json", server.create(server.Options(names=("testserver",)))
)
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
QUIET = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


@SCHEMA.parametrize()
@settings(max_examples=25, **QUIET)
def test_answers_are_as_described(case):
    case.call_and_validate(checks=CHECKS)


@pytest.mark.long
@SCHEMA.parametrize()
@settings(max_examples=2000, **QUIET)
def test_many_answers_are_as_described(case):
    case.call_and_validate(checks=CHECKS)
