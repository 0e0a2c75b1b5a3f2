"""Describes the API: as an OpenAPI document for programs, and as a page for people."""

from __future__ import annotations

import functools
import html
from typing import Any

import paligemma_lib
from paligemma_lib.runtime.strict_json import dumps
from paligemma_lib.serving.endpoint.caption_endpoint import CaptionForm
from paligemma_lib.serving.endpoint.chat_request import ChatRequest

_ERRORS = {
    "400": "The request is wrong; the message says what to change.",
    "401": "The API key is missing or wrong.",
    "404": "There is no such model or path.",
    "408": "The body took too long.",
    "413": "The body or the image is too large.",
    "429": "Too much is waiting: try again after Retry-After seconds.",
    "500": "The model failed.",
    "503": "The server starts or ends, or the caption took too long.",
}
_GETS = {
    "/v1/models": "The models by name.",
    "/healthz": "200 while captions can be expected; else 503.",
    "/readyz": "200 once all models are loaded and compiled; else 503.",
    "/metrics": "Metrics in Prometheus's text format.",
}
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 46rem; margin: 0 auto; padding: 1.5rem; overflow-wrap: anywhere; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; font-size: 1.15rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9rem; }
pre { overflow-x: auto; padding: .8rem 1rem; border: 1px solid #8886; border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid #8884; }
"""
_EXAMPLES = {
    "/caption": "curl -F image=@dog.jpg -F prompt='caption en' http://127.0.0.1:8000/caption",
    "/v1/chat/completions": """from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="KEY")
image = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,..."}}
answer = client.chat.completions.create(
    model="nano",
    messages=[{"role": "user", "content": [image, {"type": "text", "text": "caption en"}]}],
)
print(answer.choices[0].message.content)""",
}


@functools.cache
def document() -> dict[str, Any]:
    """Returns the OpenAPI document."""
    chat = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    form = CaptionForm.model_json_schema()
    schemas = chat.pop("$defs", {}) | {"ChatRequest": chat}
    form["properties"] = {"image": {"type": "string", "format": "binary"}} | form["properties"]
    form["required"] = ["image"]
    schemas["CaptionForm"] = form
    return {
        "openapi": "3.1.0",
        "info": {"title": "Captions for images", "version": paligemma_lib.__version__},
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
        "paths": {
            "/v1/chat/completions": _post(
                "Captions an image, in the form of OpenAI's chat completions.",
                "application/json", "ChatRequest",
            ),
            "/caption": _post(
                "Captions an uploaded image.", "multipart/form-data", "CaptionForm"
            ),
            **{
                path: {"get": {"summary": told, "responses": {"200": {"description": told}}}}
                for path, told in _GETS.items()
            },
        },
    }  # fmt: skip


@functools.cache
def page() -> str:
    """Returns the description as a page, which fetches nothing from elsewhere."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>Captions for images</title><style>{_STYLE}</style>",
        "<h1>Captions for images</h1><p>For programs: <a href=/openapi.json>openapi.json</a>.</p>",
    ]
    schemas = document()["components"]["schemas"]
    for path, name in (("/v1/chat/completions", "ChatRequest"), ("/caption", "CaptionForm")):
        summary = document()["paths"][path]["post"]["summary"]
        parts.append(f"<h2><code>POST {path}</code></h2><p>{html.escape(summary)}</p>")
        parts.append(f"<pre>{html.escape(_EXAMPLES[path])}</pre><table>")
        parts.append("<tr><th>field<th>type<th>what it is</tr>")
        for field, schema in schemas[name]["properties"].items():
            cells = (
                f"<code>{field}</code>",
                html.escape(_kind(schema)),
                html.escape(_about(schema)),
            )
            parts.append(f"<tr>{''.join(f'<td>{cell}' for cell in cells)}</tr>")
        parts.append("</table>")
    rows = "".join(
        f"<tr><td><code>GET {path}</code><td>{html.escape(told)}</tr>"
        for path, told in _GETS.items()
    )
    parts.append(f"<h2>More</h2><table>{rows}</table>")
    rows = "".join(f"<tr><td>{each}<td>{html.escape(told)}</tr>" for each, told in _ERRORS.items())
    return "".join([*parts, f"<h2>Errors</h2><table>{rows}</table></html>"])


def _post(summary: str, kind: str, schema: str) -> dict[str, Any]:
    content = {kind: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    responses = {"200": {"description": "The caption."}}
    responses |= {status: {"description": told} for status, told in _ERRORS.items()}
    body = {"required": True, "content": content}
    return {"post": {"summary": summary, "requestBody": body, "responses": responses}}


def _kind(schema: dict[str, Any]) -> str:
    several = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    told = []
    for each in several:
        name = each.get("type") or each.get("$ref", "").rpartition("/")[2] or str(each.get("const"))
        bounds = {
            "at least": each.get("minimum"), "above": each.get("exclusiveMinimum"),
            "at most": each.get("maximum"), "below": each.get("exclusiveMaximum"),
        }  # fmt: skip
        found = [f"{word} {value}" for word, value in bounds.items() if value is not None]
        told.append(", ".join([name, *found]))
    return " or ".join(told)


def _about(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    told = [] if default in (None, False) else [f"default: {dumps(default)}"]
    return "; ".join([schema["description"], *told] if "description" in schema else told)
