"""Requests made up from the OpenAPI document, valid and not: no 500, and every answer as the document says.

The stream is left out: it does not end. `test_stream_auth.py` and `test_bad_input.py` attack it by hand.
"""

from __future__ import annotations

import warnings

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.servers import API_KEY, new_user, token_for

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
EXAMPLES = {GenerationMode.POSITIVE: 20, GenerationMode.NEGATIVE: 25}
LEFT_OUT = {"/api/v1/messages/stream", "/health", "/ready"}
PHASES = (Phase.explicit, Phase.generate)  # no shrinking: a failure is told with its request


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mode", list(EXAMPLES), ids=lambda mode: mode.value)
async def test_every_answer_is_one_that_the_document_describes(server, mode):
    """Protocol 9.5: ids of things that exist are among the values, so that valid requests also succeed."""
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    group = await server.group(ada, bob)
    message = await server.post(ada, group, "hello")
    known = {
        "conversation_id": st.just(group),
        "message_id": st.just(message["id"]),
        "user_id": st.sampled_from([ada, bob]),
    }
    _, document = await server.call("GET", "/openapi.json")
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url)
    answered: list[int] = []
    with requests.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strategies that find few examples
        for result in schema.get_all_operations():
            operation = result.ok()  # type: ignore[union-attr]  # an error in the document raises here
            if operation.path not in LEFT_OUT:
                attack(operation, session, mode, user=ada, known=known, answered=answered)
    assert len(answered) > 100
    assert sum(status < 300 for status in answered) > 20 or mode is GenerationMode.NEGATIVE
    assert "unexpected_error" not in server.log.read_text()


def attack(operation, session, mode, *, user: str, known, answered: list[int]) -> None:
    is_server_api = "ServerKey" in str(operation.definition.raw.get("security"))
    headers = {"X-API-Key": API_KEY} if is_server_api else {"Authorization": f"Bearer {token_for(user)}"}

    @settings(
        max_examples=EXAMPLES[mode],
        deadline=None,
        database=None,
        derandomize=True,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def one(case, data) -> None:
        for name, values in known.items():
            if mode is GenerationMode.POSITIVE and name in (case.path_parameters or {}):
                case.path_parameters[name] = data.draw(values)
        response = case.call(session=session, headers=headers, timeout=10)
        case.validate_response(response, checks=CHECKS)
        answered.append(response.status_code)

    one()
