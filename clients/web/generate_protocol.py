"""Generate `src/protocol.ts` from the server's JSON schema, so that the wire protocol has a single source.

    python clients/web/generate_protocol.py            # write
    python clients/web/generate_protocol.py --check    # exit 1 if the committed file is stale

Knows JSON Schema and TypeScript, not the meaning of the messages. The schema is the output of
`python -m server.wire.protocol`, run as a subprocess because the clients import nothing of the server.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = HERE / "src" / "protocol.ts"

HEADER = """\
/**
 * The wire protocol's messages. GENERATED from server/wire/protocol.py by generate_protocol.py: do not edit.
 *
 * Messages are named `...Message` so that they do not shadow types of the browser.
 */
"""

Schema = dict[str, Any]

PRIMITIVES = {"integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


class SchemaError(ValueError):
    """The schema uses a construct this generator does not translate."""


def load_schema() -> Schema:
    """Run the server's exporter and return the schema that it prints."""
    result = subprocess.run(
        [sys.executable, "-m", "server.wire.protocol"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise SystemExit(f"`python -m server.wire.protocol` failed:\n{result.stderr}")
    schema: Schema = json.loads(result.stdout)
    return schema


class Renderer:
    """Renders one schema. Models that are messages get the suffix `Message`."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.messages = {*schema["client"], *schema["server"]}

    def name_of(self, model: str) -> str:
        """Return the TypeScript name of a model."""
        return f"{model}Message" if model in self.messages else model

    def type_of(self, node: Schema) -> str:
        """Return the TypeScript type of a schema node."""
        if "$ref" in node:
            return self.name_of(str(node["$ref"]).rsplit("/", 1)[-1])
        if "const" in node:
            return json.dumps(node["const"])
        if "enum" in node:
            return " | ".join(json.dumps(value) for value in node["enum"])
        for union in ("anyOf", "oneOf"):
            if union in node:
                return " | ".join(dict.fromkeys(self.type_of(option) for option in node[union]))
        if len(node.get("allOf", ())) == 1:
            return self.type_of(node["allOf"][0])
        return self.type_by_kind(node)

    def type_by_kind(self, node: Schema) -> str:
        """Return the TypeScript type of a node with a `type`, or without any constraint."""
        kind = node.get("type")
        if kind == "string":
            return "Uint8Array" if node.get("format") in {"binary", "base64", "base64url"} else "string"
        if isinstance(kind, str) and kind in PRIMITIVES:
            return PRIMITIVES[kind]
        if kind == "array":
            return self.array_type(node)
        if kind == "object" or kind is None:
            extra = node.get("additionalProperties")
            return f"Readonly<Record<string, {self.type_of(extra) if isinstance(extra, dict) else 'unknown'}>>"
        raise SchemaError(f"cannot translate {node!r}; teach generate_protocol.py this construct")

    def array_type(self, node: Schema) -> str:
        """Return a tuple type if the schema fixes the items, else a read-only array type."""
        if "prefixItems" in node:
            return f"readonly [{', '.join(self.type_of(item) for item in node['prefixItems'])}]"
        return f"ReadonlyArray<{self.type_of(node.get('items', {}))}>"

    def declaration(self, name: str, node: Schema) -> str:
        """Return an interface for an object with properties, and a type alias for anything else."""
        lines = comment(node["description"]) if "description" in node else []
        if "properties" not in node:
            return "\n".join([*lines, f"export type {self.name_of(name)} = {self.type_of(node)};"])
        required = set(node.get("required", ()))
        lines.append(f"export interface {self.name_of(name)} {{")
        # The tags that identify the message come first.
        for field, inner in sorted(node["properties"].items(), key=lambda item: "const" not in item[1]):
            if "description" in inner:
                lines += comment(inner["description"], "  ")
            # A tag is always sent, although the schema gives it a default.
            mark = "" if field in required or "const" in inner else "?"
            lines.append(f"  readonly {field}{mark}: {self.type_of(inner)};")
        return "\n".join([*lines, "}"])

    def side(self, alias: str, models: list[str]) -> str:
        """Return the union type of one side's messages."""
        return f"export type {alias} =\n" + "\n".join(f"  | {self.name_of(model)}" for model in models) + ";"

    def render(self) -> str:
        """Return the contents of the TypeScript file."""
        blocks = [
            f"export const PROTOCOL_VERSION = {int(self.schema['version'])};",
            self.side("ClientMessage", self.schema["client"]),
            self.side("ServerMessage", self.schema["server"]),
            *(self.declaration(name, node) for name, node in sorted(self.schema["$defs"].items())),
        ]
        return HEADER + "\n" + "\n\n".join(blocks) + "\n"


def comment(text: str, indent: str = "") -> list[str]:
    """Return a documentation comment as lines."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) == 1:
        return [f"{indent}/** {lines[0]} */"]
    return [f"{indent}/**", *(f"{indent} * {line}".rstrip() for line in lines), f"{indent} */"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description="Generate src/protocol.ts from server/wire/protocol.py.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with code 1 if the committed file is stale"
    )
    args = parser.parse_args(argv)
    generated = Renderer(load_schema()).render()
    current = TARGET.read_text(encoding="utf-8") if TARGET.exists() else ""
    if not args.check:
        TARGET.write_text(generated, encoding="utf-8")
        return 0
    if current == generated:
        return 0
    sys.stderr.write("clients/web/src/protocol.ts is stale; run: python clients/web/generate_protocol.py\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
