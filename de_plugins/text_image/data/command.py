"""``diffuse prepare``: pictures with captions into shards to train on."""

from __future__ import annotations

import argparse
import json
import sys

__all__ = ["Command"]

_SHOWN = 5  # reasons


class Command:
    """The arguments and the work of ``diffuse prepare``."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        about = "a folder of pictures with captions, or a Parquet file with columns image and caption"
        parser.add_argument("images", metavar="IMAGES", help=about)
        parser.add_argument("--out", required=True, metavar="DIR", help="where to write the shards")
        parser.add_argument("--size", type=int, default=64, metavar="N", help="pixels a side (default: 64)")
        words = parser.add_mutually_exclusive_group()
        words.add_argument("--tokenizer", metavar="FILE", help="a tokenizer.json to use in place of training one")
        about = "tokens of the one to train (default: 4096)"
        words.add_argument("--vocabulary", type=int, default=4096, metavar="N", help=about)
        parser.add_argument("--length", type=int, default=32, metavar="N", help="tokens a caption (default: 32)")
        about = "what to do with a caption of more tokens (default: truncate)"
        parser.add_argument("--overflow", default="truncate", choices=["truncate", "refuse"], help=about)
        parser.add_argument("--empty", action="store_true", help="take captions without words too")
        about = "write latents of this autoencoder (diffusers' AutoencoderKL), a directory or a name on the hub"
        parser.add_argument("--vae", metavar="NAME_OR_DIR", help=about)
        parser.add_argument("--shard-rows", type=int, default=1024, metavar="N", help="rows a file (default: 1024)")
        parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")

    def run(self, args: argparse.Namespace) -> int:
        from de_plugins.text_image.data.prepare import Recipe, prepare

        recipe = Recipe(
            size=args.size,
            length=args.length,
            vocabulary=args.vocabulary,
            tokenizer=args.tokenizer,
            overflow=args.overflow,
            empty=args.empty,
            vae=args.vae,
            shard_rows=args.shard_rows,
        )
        index = prepare(args.images, args.out, recipe, report=_say)
        summary = {name: index[name] for name in ("read", "rows", "skipped", "truncated", "vocabulary", "tensors")}
        summary |= {"out": args.out, "shards": len(index["shards"]), "reasons": index["reasons"][:_SHOWN]}
        print(json.dumps(summary) if args.json else _text(summary, args.length))
        return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _text(summary: dict, length: int) -> str:
    lines = [f"{summary['rows']:,} of {summary['read']:,} items in {summary['shards']:,} shards in {summary['out']}"]
    if summary["truncated"]:
        lines.append(f"{summary['truncated']:,} captions were cut to {length} tokens")
    if summary["skipped"]:
        lines.append(f"{summary['skipped']:,} were skipped:")
        lines += [f"  {name}: {reason}" for name, reason in summary["reasons"]]
    if summary["skipped"] > len(summary["reasons"]):
        lines.append("  and more; index.json lists them")
    return "\n".join(lines)
