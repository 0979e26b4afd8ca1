"""The command as the tests call it, and what it leaves on disk."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from training.data.prepare.command import add_prepare_parser

Run: TypeAlias = Callable[..., int]
SETS = ("mini_voc_seg", "mini_coco_det", "imagenette_160")
# What the small trees have enough pictures for.
FEW = ("--train-total", "20", "--val-total", "10", "--detection-classes", "person,cat,dog,bottle")


def parse(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_prepare_parser(parser.add_subparsers())
    return parser.parse_args(["prepare", *map(str, words)])


def read_tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def read_manifest(out: Path, folder: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((out / folder / "manifest.json").read_bytes())
    return manifest


def read_pictures(out: Path, folder: str, split: str) -> dict[str, dict[str, Any]]:
    """Rows of the manifest by id."""
    return {row["id"]: row for row in read_manifest(out, folder)["pictures"] if row["split"] == split}


def read_labels(out: Path, split: str) -> dict[str, Any]:
    labels: dict[str, Any] = json.loads((out / "mini_coco_det" / split / "labels.json").read_bytes())
    return labels
