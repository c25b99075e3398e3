"""The JSON interface, described for programs: OpenAPI 3.1, https://spec.openapis.org/oas/v3.1.0."""

from __future__ import annotations

from typing import Any

import temporal_attn
from temporal_attn.keyframes.page import json_schema
from temporal_attn.keyframes.removal import REMOVALS
from temporal_attn.keyframes.scores import names
from temporal_attn.serve.limits import Limits

__all__ = ["openapi"]


def openapi(limits: Limits) -> dict[str, Any]:
    """The document, with the limits of this server."""
    text = {"type": "string"}
    video = {"type": "object", "required": ["id", "name"], "properties": {"id": text, "name": text}}
    inspection = {
        "type": "object",
        "required": ["id", "video", "question", "status", "stage", "progress", "error", "verdict"],
        "properties": {
            "id": text,
            "video": text,
            "question": {"type": "object"},
            "status": {"enum": ["queued", "running", "done", "failed", "cancelled"]},
            "stage": text,
            "progress": {"type": "number", "minimum": 0, "maximum": 1},
            "error": {"type": ["string", "null"]},
            "verdict": {"type": ["string", "null"]},
        },
    }
    question = {
        "type": "object",
        "required": ["video"],
        "additionalProperties": False,
        "properties": {
            "video": {**text, "description": "Id of the video."},
            "target": {"type": ["string", "integer"], "default": "pred", "description": "A class name or index."},
            "against": {"type": ["string", "integer", "null"], "description": "The other class of a contrast."},
            "method": {"enum": names(), "default": "auto"},
            "removal": {"enum": list(REMOVALS), "default": "drop"},
            "topk": {"type": "integer", "minimum": 1, "maximum": 64, "default": 3},
            "seed": {"type": "integer", "minimum": 0, "default": 0},
        },
    }
    missing = {"404": _answer("There is none of this id.", _ref("Error"))}
    by_id = [{"name": "id", "in": "path", "required": True, "schema": text}]
    return {
        "openapi": "3.1.0",
        "info": {"title": "temporal_attn", "version": temporal_attn.__version__},
        "paths": {
            "/api/videos": {
                "get": _call("Videos that can be asked about", _list(_ref("Video"))),
                "post": {
                    **_call("Upload a video", _ref("Video"), status="201"),
                    "description": f"At most {limits.upload / 1e6:.0f} MB and {limits.length:.0f} s.",
                    "parameters": [{"name": "name", "in": "query", "schema": text}],
                    "requestBody": {"content": {"application/octet-stream": {}}, "required": True},
                },
            },
            "/api/inspections": {
                "post": {
                    **_call("Ask which frames decide", _ref("Inspection"), status="202"),
                    "description": f"At most {limits.jobs} at the same time, {limits.wait:.0f} s each.",
                    "requestBody": {"content": {"application/json": {"schema": _ref("Question")}}, "required": True},
                },
            },
            "/api/inspections/{id}": {
                "parameters": by_id,
                "get": _call("Progress", _ref("Inspection"), missing),
                "delete": _call("Take it back", _ref("Inspection"), missing),
            },
            "/api/inspections/{id}/scores": {
                "parameters": by_id,
                "get": _call("The scores, when it is done", _ref("Scores"), missing),
            },
        },
        "components": {
            "schemas": {
                "Video": video,
                "Inspection": inspection,
                "Question": question,
                "Scores": json_schema("scores-1.json"),
                "Error": {"type": "object", "required": ["error"], "properties": {"error": text}},
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _call(
    summary: str, schema: dict[str, Any], more: dict[str, Any] | None = None, status: str = "200"
) -> dict[str, Any]:
    failed = {"default": _answer("Why it cannot be done.", _ref("Error"))}
    return {"summary": summary, "responses": {status: _answer(summary, schema), **(more or {}), **failed}}
