"""A client as generators make it from an OpenAPI document: typed bodies, `default`s filled in.

A property that has a `default` is sent with it unless the caller gives another value; others are
sent only where they are given. So do openapi-generator and openapi-python-client.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any


class GeneratedClient:
    """The bodies that a client of `document` sends, by method and path."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def body(self, method: str, path: str, given: Mapping[str, Any]) -> Any:
        """Return what is sent where a program gives only these fields, nested ones too."""
        return self._filled(self.schema(method, path), given)

    def schema(self, method: str, path: str) -> Mapping[str, Any]:
        """Return the schema of an operation's body."""
        content = self._document["paths"][path][method.lower()]["requestBody"]["content"]
        return self._object(content["application/json"]["schema"])

    def fields(self, schema: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
        """Yield the path of every property, those of nested objects in place of the objects."""
        for name, inner in schema["properties"].items():
            nested = self._object(inner)
            if "properties" in nested:
                yield from ((name, *rest) for rest in self.fields(nested))
            else:
                yield (name,)

    def property(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
        """Return the schema of a property by its path."""
        found = schema
        for name in path:
            found = self._object(found)["properties"][name]
        return found

    def _filled(self, schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        sent = {}
        for name, inner in schema["properties"].items():
            nested = self._object(inner)
            if name in given and isinstance(given[name], Mapping) and "properties" in nested:
                sent[name] = self._filled(nested, given[name])
            elif name in given:
                sent[name] = given[name]
            elif "default" in inner:
                sent[name] = copy.deepcopy(inner["default"])
        return sent

    def _object(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the object that a schema is or refers to, through `null` alternatives."""
        if "$ref" in schema:
            return self._object(
                self._document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
            )
        for choice in schema.get("anyOf", ()):
            found = self._object(choice)
            if "properties" in found:
                return found
        return schema


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return the body that gives one property, by its path, this value."""
    for name in reversed(path):
        value = {name: value}
    return value
