"""Several experiment files become one tree, the later laid over the earlier, before the parser sees them.

jsonargparse composes files too, but replaces free mappings (``alias``) whole, and where a later file names another
class, it silently drops every setting that holds an interpolation. Here the rules are these:

1. mappings are merged key by key; everything else, lists too, is replaced; ``key+: [...]`` appends to a list;
2. where ``class_path`` changes, the settings stay that the new class has too, by name, and the others go.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from g2r_lightning.sealed_yaml import unsealed_yaml

Tree = dict[str, Any]
CONFIG_FLAGS = ("-c", "--config")


def with_one_file(arguments: Sequence[str]) -> list[str]:
    """Return the flags of a command with its configuration files composed into one, which comes first.

    Args:
        arguments: flags; ``-c FILE``, ``-c=FILE``, ``--config FILE`` and ``--config=FILE`` name files.

    Raises:
        OSError: a file cannot be read.
        yaml.YAMLError: a file is not YAML.
    """
    files, others = split_files(arguments)
    nulls = [word for word in others if _is_nested_null(word)] if files else []
    if len(files) < 2 and not nulls:
        # the parser reads it itself, so that its complaints name the file; an empty one it cannot
        return others if files and not read_tree(files[0]) else list(arguments)
    tree: Tree = {}
    for file in files:
        tree = laid_over(tree, read_tree(file))
    for word in nulls:
        put(tree, word.removeprefix("--").partition("=")[0].split("."), None)
    rest = [word for word in others if word not in nulls]
    return ["--config", yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), *rest]


def split_files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the configuration files that a command line names, in order, and its other words."""
    files: list[str] = []
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag not in CONFIG_FLAGS:
            others.append(word)
        elif equals:
            files.append(value)
        else:
            files.extend(value for value in (next(words, None),) if value is not None)
    return files, others


def read_tree(file: str) -> Tree:
    """Return a configuration file as it stands, interpolations unresolved; one of comments alone is an empty tree.

    Raises:
        OSError: the file cannot be read.
        yaml.YAMLError: it is empty, not YAML, or no mapping, or a run's own that is not as it was written.
    """
    with Path(file).open(encoding="utf-8") as stream:  # its name is in the parser's complaints
        try:
            unsealed_yaml(text := stream.read())
            stream.seek(0)
            tree = yaml.safe_load(stream)
        except (ValueError, RecursionError) as error:
            reason = {UnicodeDecodeError: "not UTF-8", RecursionError: "nested too deeply"}.get(type(error), str(error))
            raise yaml.YAMLError(f"{file}: {reason}") from error
    if not text:
        raise yaml.YAMLError(f"{file}: is empty")
    if tree is not None and not isinstance(tree, dict):
        raise yaml.YAMLError(f"{file}: an experiment is a mapping of sections, this is a {type(tree).__name__}")
    return tree or {}


def laid_over(lower: Tree, upper: Tree) -> Tree:
    """Return one tree laid over another; neither is changed.

    >>> laid_over({"alias": {"alpha": 0.0, "store": "a"}}, {"alias": {"alpha": 0.1}})
    {'alias': {'alpha': 0.1, 'store': 'a'}}
    >>> laid_over({"callbacks": [1]}, {"callbacks+": [2]})
    {'callbacks': [1, 2]}
    """
    lower = _fitted(lower, upper.get("class_path"))
    merged = dict(lower)
    for key, value in upper.items():
        below = lower.get(key)
        listed = lower.get(key.removesuffix("+")) if isinstance(key, str) and key.endswith("+") else None
        if isinstance(listed, list) and isinstance(value, list):
            merged[key.removesuffix("+")] = [*listed, *value]
        elif isinstance(below, dict) and isinstance(value, dict):
            merged[key] = laid_over(below, value)
        else:
            merged[key] = value
    return merged


def parameters(owner: Any) -> list[str] | None:
    """Return the names of a class's or function's settings; ``None`` where they cannot be told."""
    if owner is None:
        return None
    names: list[str] = []
    for cls in inspect.getmro(owner) if inspect.isclass(owner) else (owner,):
        try:
            signature = inspect.signature(cls.__init__ if inspect.isclass(cls) else cls)
        except (TypeError, ValueError):
            return None
        names += [name for name in signature.parameters if name not in ("self", "args", "kwargs")]
        if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            break  # only a constructor that passes keywords on takes its parents' names
    return names


def imported(class_path: Any) -> Any:
    """Return what a dotted path names, or ``None``."""
    module, _, name = str(class_path).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None


def put(tree: Tree, path: list[str], value: Any) -> None:
    """Set a value in a tree as a flag does, whose path may leave out ``init_args``."""
    for key, following in pairwise(path):
        below = tree.setdefault(key, {})
        if not isinstance(below, dict):
            return
        if isinstance(below.get("init_args"), dict) and following not in ("class_path", "init_args"):
            below = below["init_args"]  # flags may leave out `init_args`
        tree = below
    if path[-1] not in ("class_path", "init_args") or not isinstance(tree.get(path[-1]), dict):
        tree[path[-1]] = value


def _is_nested_null(word: str) -> bool:
    """Whether a flag sets a class's setting within another class to null, which jsonargparse 4 makes a text of."""
    flag, _, value = word.partition("=")
    return value == "null" and len([part for part in flag.split(".") if part != "init_args"]) > 2


def _fitted(lower: Tree, class_path: Any) -> Tree:
    """Return a class's tree with those settings alone that another class has too."""
    settings = lower.get("init_args")
    if class_path in (None, lower.get("class_path")) or not isinstance(settings, dict):
        return lower
    known = parameters(imported(class_path))
    if known is None:
        return lower
    return {**lower, "init_args": {key: value for key, value in settings.items() if key in known}}
