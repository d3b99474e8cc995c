"""An OpenAPI description of the Client-Server API, made from the table of facts."""

import json
import pathlib

FACTS = (pathlib.Path(__file__).resolve().parents[2]
         / "HomeserverHTTPTests/Conformance/Facts/client-server.json")
# How long an answer may wait is not left to chance.
LEFT_OUT = {"timeout", "timeout_ms"}


def schema(fact, known):
    """A fact as a schema: see scripts/conformance-facts for how facts are written."""
    if isinstance(fact, str):
        kind, *named = fact.split()
        if kind in ("any", "error"):
            return {}
        # What a text names is there; what isn't is wrong, and asked for as such.
        return {"type": kind, "enum": known[named[0]]} if named and named[0] in known else {"type": kind}
    if "oneOf" in fact:
        return {"anyOf": [schema(one, known) for one in fact["oneOf"]]}
    if "enum" in fact:
        return {"enum": fact["enum"]}
    if "items" in fact:
        return {"type": "array", "items": schema(fact["items"], known)}
    whole = {"type": "object", "properties": {name: schema(one, known) for name, one in fact.get("fields", {}).items()}}
    if fact.get("required"):
        whole["required"] = fact["required"]
    values = fact.get("values") or next(iter(fact.get("keys", {}).values()), None)
    if values:
        whole["additionalProperties"] = schema(values, known)
    return whole


def parameter(name, place, facts, known):
    kind = {"type": "string", "enum": known[name]} if name in known else schema(facts["type"], known)
    return {"name": name, "in": place, "required": place == "path" or facts.get("required", False), "schema": kind}


def describe(known, without):
    """The description.

    known: values of what names something that is there, by the names of parameters and by formats.
    without: paths that are left out.
    """
    paths = {}
    for one in json.loads(FACTS.read_text())["operations"]:
        if one["path"] in without:
            continue
        operation = {
            "operationId": one["id"].replace(" ", "_"),
            "responses": {"200": {"description": "success"}},
            "parameters": [
                *(parameter(name, "path", facts, known) for name, facts in one.get("parameters", {}).items()),
                *(parameter(name, "query", facts, known) for name, facts in one.get("query", {}).items()
                  if name not in LEFT_OUT),
            ],
        }
        request = one.get("request")
        if request == "bytes":
            operation["requestBody"] = {
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
        elif request is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema(request, known)}}}
        paths.setdefault(one["path"], {})[one["method"].lower()] = operation
    return {"openapi": "3.0.3", "info": {"title": "Client-Server API", "version": "1"}, "paths": paths}
