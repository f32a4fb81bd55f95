"""``diffuse inspect DIR``: what an artifact holds, whoever wrote it."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

from de_core.artifact import Artifact, load_artifact
from de_core.errors import DiffuseError
from de_core.plugins import BUILTIN, plugin_records

__all__ = ["add_arguments", "run", "sparkline"]

BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-~=+*#"
CURVE = "curve.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``diffuse inspect``."""
    parser.add_argument("dir", metavar="DIR", help="an artifact directory")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    artifact = load_artifact(args.dir)
    try:
        facts = _facts(artifact)
        told = json.dumps(facts) if args.json else _text(facts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DiffuseError(
            f"artifact {args.dir}: damaged or of another version ({type(error).__name__}: {error})"
        ) from error
    print(told)
    return 0


def _facts(artifact: Artifact) -> dict[str, Any]:
    config = artifact.config
    joint = config.get("joint", config)
    modalities = joint.get("modalities", {}) if isinstance(joint, dict) else {}
    facts: dict[str, Any] = {
        "path": str(artifact.path),
        "format": config["format"],
        "kind": config["kind"],
        "parameters": config.get("parameters", sum(tensor.numel() for tensor in artifact.tensors.values())),
        "versions": config.get("versions", {}),
        "modalities": modalities,
        "plugins": _installed(modalities),
        "curve": _curve(artifact.path / CURVE),
        "files": config.get("files", []),
    }
    if "schema" in config:
        facts["schema"] = config["schema"]
    return facts


def _installed(modalities: dict[str, Any]) -> dict[str, str | None]:
    """For each plugin that the modalities name: the distribution and version here, or None."""
    records = plugin_records()
    names = {m["plugin"] for m in modalities.values() if isinstance(m, dict) and "plugin" in m}
    found: dict[str, str | None] = {}
    for name in sorted(names):
        key = name if ":" in name else f"{BUILTIN}:{name}"
        found[name] = next((r.origin for r in records if (r.kind, r.key) == ("modality", key)), None)
    return found


def _curve(path: Path) -> list[dict[str, Any]]:
    """The records of the training curve. A torn line is left out, what is not finite becomes null."""
    if not path.is_file():
        return []
    records: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line, parse_constant=lambda _: None)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def sparkline(values: list[float], width: int = 60, bars: str = BARS) -> str:
    """The values from left to right as bars, the mean of neighbours where there are more than ``width``."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [i * len(values) // count for i in range(count + 1)]
    means = [math.fsum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(bars[round((mean - low) * scale)] for mean in means)


def _text(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [
        f"{facts['path']}: {facts['kind']} artifact, format {facts['format']}",
        f"parameters  {facts['parameters']:,}",
        f"written by  {versions}",
    ]
    if facts["modalities"]:
        lines.append("modalities")
    for name, modality in facts["modalities"].items():
        plugin = modality.get("plugin", "") if isinstance(modality, dict) else ""
        here = facts["plugins"].get(plugin) or "not installed here"
        about = f"{plugin} ({here})  {_short(modality.get('config', {}))}" if plugin else _short(modality)
        lines.append(f"  {name}  {about}")
    if "schema" in facts:
        lines.append("schema")
        lines += _schema(facts["schema"])
    losses = [r["loss"] for r in facts["curve"] if isinstance(r.get("loss"), int | float)]
    if losses:
        encoding = sys.stdout.encoding or "ascii"
        bars = BARS if BARS.encode(encoding, "ignore").decode(encoding) == BARS else PLAIN_BARS
        lines.append(f"curve       {sparkline(losses, bars=bars)}  loss {losses[0]:.4g} to {losses[-1]:.4g}")
    if facts["files"]:
        lines.append(f"files       {', '.join(facts['files'])}")
    return "\n".join(lines)


def _schema(schema: Any) -> list[str]:
    """A line for each column, whether the schema maps columns to facts or lists them."""
    if isinstance(schema, dict):
        columns = schema.get("columns", schema)
        if isinstance(columns, dict):
            return [f"  {name}  {_short(facts)}" for name, facts in columns.items()]
        schema = columns
    return [f"  {_short(column)}" for column in schema] if isinstance(schema, list) else [f"  {schema}"]


def _short(value: Any, width: int = 100) -> str:
    text = json.dumps(value, ensure_ascii=True) if not isinstance(value, str) else value
    return text if len(text) <= width else f"{text[: width - 3]}..."
