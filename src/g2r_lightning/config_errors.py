"""Say which key of a configuration is wrong, where it stands, and which was probably meant.

jsonargparse's own complaint about a misspelt key inside a nested class lists every alternative type it tried. After a
failure, this module walks the composed files and flags beside the constructors' signatures and finds the key itself.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Any, get_args, get_type_hints

import yaml

from g2r_lightning.composition import Tree, imported, laid_over, parameters, put, read_tree

PLACES = {"class_path", "init_args", "dict_kwargs"}
NO_SECTIONS = {"help", "config", "print_config", "print_shtab"}


def explain(error: Exception, arguments: Sequence[str], parser: Any) -> str:
    """Return a message for the person at the keyboard.

    Args:
        error: what the parser raised.
        arguments: the flags of the command.
        parser: the parser, for its top-level keys.
    """
    sections = sorted({action.dest.split(".")[0] for action in parser._actions} - NO_SECTIONS)
    try:
        tree = composed(arguments)
    except (OSError, yaml.YAMLError) as broken:
        return f"cannot read the configuration: {' '.join(str(broken).split())}"
    for path, known in unknown_keys(tree, sections):
        nearest = get_close_matches(path[-1], known, 1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"known here: {', '.join(sorted(known))}"
        return f"unknown key '{'.'.join(path)}'; {hint}"
    return with_nearest_name(innermost(str(error).strip()))


def with_nearest_name(complaint: str) -> str:
    """Add to a complaint about a class that is not in its module the nearest one that is.

    >>> with_nearest_name("model.loss: module 'g2r_lightning.losses' has no attribute 'G2RLos'")
    "model.loss: module 'g2r_lightning.losses' has no attribute 'G2RLos'; did you mean 'G2RLoss'?"
    """
    found = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", complaint)
    if found is None:
        return complaint
    nearest = get_close_matches(found[2], dir(importlib.import_module(found[1])), 1)
    return f"{complaint}; did you mean '{nearest[0]}'?" if nearest else complaint


def idle_alias(arguments: Sequence[str]) -> str | None:
    """Return what is wrong with a flag ``--alias.name`` that reaches nothing; ``None`` where all reach something.

    Aliases are free names: the parser takes a misspelt one, and the run would use the value that it was to replace.
    """
    flags = [word.removeprefix("--alias.").partition("=")[0] for word in arguments if word.startswith("--alias.")]
    if not flags:
        return None
    files = composed([word for word in arguments if not word.startswith("--alias.")])
    named = set(re.findall(r"\$\{[^{}]*?alias\.(\w+)", str(composed(arguments))))
    declared = files.get("alias")
    known = named | set(declared if isinstance(declared, dict) and named else ())
    for flag in flags:
        if flag.split(".")[0] not in known:
            nearest = get_close_matches(flag, sorted(known), 1)
            remedy = f"did you mean '{nearest[0]}'?" if nearest else f"known here: {', '.join(sorted(known)) or 'none'}"
            resolved = "" if named else " (a run's config.yaml has them resolved: give the experiment's own files)"
            return f"'--alias.{flag}' reaches nothing, no setting names ${{alias.{flag}}}{resolved}; {remedy}"
    return None


def composed(arguments: Sequence[str]) -> Tree:
    """Return files and flags of a command line merged into one tree, values uninterpreted."""
    tree: Tree = {}
    flags: list[tuple[str, Any]] = []
    waiting: str | None = None
    for argument in arguments:
        if waiting is not None and not argument.startswith("--"):
            flags.append((waiting, argument))
            waiting = None
        elif argument.startswith("-"):
            name, equals, value = argument.lstrip("-").partition("=")
            if equals:
                flags.append((name, value))
            else:
                waiting = name
    for name, value in flags:
        if name in ("c", "config"):
            tree = laid_over(tree, read_tree(value))
        elif name.split(".")[0] not in NO_SECTIONS:
            put(tree, name.rstrip("+").split("."), value)
    return tree


def unknown_keys(tree: Tree, sections: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the path of every key that no constructor knows, with the keys known there."""
    for key, value in tree.items():
        if key.rstrip("+") not in sections:
            yield [key], list(sections)
        elif key != "alias":
            yield from _unknown_in(value, [key], _section_class(key))


def _unknown_in(value: Any, path: list[str], owner: Any) -> Iterator[tuple[list[str], list[str]]]:
    """Walk one value: a class given by ``class_path``, a known constructor's settings, or a collection of such."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_in(item, [*path, str(index)], None)
        return
    if not isinstance(value, dict):
        return
    if "class_path" in value:
        owner = imported(value["class_path"]) or owner
        inner = {**_flattened(value), **(value.get("init_args") or {})}
        path = [*path, "init_args"]
    elif "init_args" in value:
        for key in value.keys() - PLACES:
            yield [*path, key], sorted(PLACES)
        inner, path = value["init_args"] or {}, [*path, "init_args"]
    else:
        inner = value
    known = parameters(owner)
    for key, item in inner.items():
        name = key.rstrip("+")
        if known is not None and name not in known:
            beside = name not in (value.get("init_args") or {}) and get_close_matches(name, PLACES, 1)
            yield ([*path[:-1], name], sorted(PLACES)) if beside else ([*path, name], known)
        else:
            yield from _unknown_in(item, [*path, name], _group(owner, name))


def _group(owner: Any, name: str) -> Any:
    """Return the dataclass of a parameter that is a group of settings, ``None`` where it is none."""
    for cls in inspect.getmro(owner) if inspect.isclass(owner) else ():
        own = vars(cls).get("__init__")
        try:
            hint = get_type_hints(own).get(name) if own is not None else None
        except (NameError, TypeError):  # a type that is imported for type checkers alone
            continue
        for kind in (hint, *get_args(hint)):
            if inspect.isclass(kind) and is_dataclass(kind):
                return kind
    return None


def _flattened(value: Tree) -> Tree:
    """Return keys that flags may give without ``init_args``."""
    return {key: item for key, item in value.items() if key not in ("class_path", "init_args", "dict_kwargs", "help")}


def _section_class(key: str) -> Any:
    classes = {
        "trainer": "lightning.pytorch.Trainer",
        "run": "g2r_lightning.sections.RunSettings",
        "sampling": "g2r_lightning.teacher.sampling.Sampling",
        "scoring": "g2r_lightning.sections.ScoringSettings",
        "predict": "g2r_lightning.sections.PredictSettings",
        "rules": "g2r_lightning.inference.rules.ReplyRules",
        "serve": "g2r_lightning.inference.server.settings.ServeSettings",
        "quality": "g2r_lightning.sections.QualitySettings",
        "sweep": "g2r_lightning.sections.SweepSettings",
    }
    return imported(classes[key]) if key in classes else None


def innermost(text: str) -> str:
    r"""Return the deepest complaints of a parser's tree of alternatives, led by the key they are about.

    >>> innermost('Parser key "model":\n  Errors:\n    - Parser key "alpha":\n        Expected a <class \'float\'>')
    'model.alpha: Expected a float'

    What a constructor refuses comes before the forms that a class could have been written in.

    >>> innermost("Errors:\n  - alpha=-1: 0 or more\n  - Not a valid subclass of X\n    Subclass types expect one of:")
    'alpha=-1: 0 or more'
    """
    unresolved = re.search(r"^\s*(Interpolation .*)\n\s*full_key: (\S+)", text, re.MULTILINE)
    if unresolved:
        return f"{unresolved[2]}: {unresolved[1]}"
    keys: list[tuple[int, str]] = []
    found: tuple[int, list[str]] = (-1, [])
    alternatives: list[str] = []
    lines = text.splitlines()
    if any(_is_refusal(line) for line in lines):
        lines = [line for line in lines if not line.strip().removeprefix("- ").startswith(_FORMS)]
    for line in lines:
        said = line.strip().removeprefix("- ")
        depth = len(line) - len(line.lstrip())
        named = re.match(r'Parser key "([^"]+)":', said)
        if named:
            keys = [(at, key) for at, key in keys if at < depth] + [(depth, named[1])]
        elif said and not said.startswith(_NOISE):
            path = [key for at, key in keys if at < depth]
            if depth > found[0]:
                found, alternatives = (depth, path), []
            if found == (depth, path):
                alternatives.append(said)
    if not alternatives:
        return text.strip()
    judged = [each for each in alternatives if not each.startswith("Expected a <class 'list'>")]  # what it would take
    path, said = found[1], "; or ".join(dict.fromkeys(judged or alternatives))
    if said.startswith("Subclass types expect"):
        said = "expected a mapping with class_path and init_args"
    said = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", said)
    said = re.sub(r"typing\.Literal\[([^\]]+)\]", r"one of \1", said).replace("Expected a one of", "Expected one of")
    return f"{'.'.join(path)}: {said}" if path else said


def _is_refusal(line: str) -> bool:
    """Whether a line of a parser's complaint is neither about types nor about which alternatives there are."""
    said = line.strip().removeprefix("- ")
    return bool(said) and not said.startswith((*_NOISE, *_FORMS, "Parser key", "Expected a"))


_FORMS = ("Not a valid subclass of", "Subclass types expect", "a class path (str)", "a dict with")
_NOISE = (
    "Does not validate",
    "Subtypes:",
    "Errors:",
    "Given value",
    "Expected a <class 'NoneType'>",
    "Problem with given",
)
