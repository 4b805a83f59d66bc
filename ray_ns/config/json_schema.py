"""The schema of a config as JSON Schema, by which editors complete and check a YAML file."""

from typing import Any

from ray_ns.config.config import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Every setting with its type, range, default and description, as ``Config`` checks it.

    What only the whole config shows (a mean per channel, weights and their hash) is checked by ``ray-ns check``.
    """
    schema = Config.model_json_schema()
    _mend(schema)
    teacher = schema["properties"]["teacher"]
    recipe, given = teacher.pop("oneOf")
    teacher.update({"if": {"required": ["from"]}, "then": given, "else": recipe})  # so that a fault is found in it
    return {"$schema": DIALECT, **schema, "title": "A run of ray-ns"}


def _mend(node: Any) -> None:
    """Put in words what a mark of ours says, and allow the null that means the default."""
    if isinstance(node, list):
        for it in node:
            _mend(it)
    if not isinstance(node, dict):
        return
    node.pop("earlier", None)
    if node.pop("result", None) is False:
        node["description"] = f"{node.get('description', '')} (does not change the result)".strip()
    for it in node.get("properties", {}).values():
        if isinstance(it, dict) and "default" in it and it["default"] is None and "type" in it:
            it["type"] = [it["type"], "null"]
    for it in node.values():
        _mend(it)
