"""What `temporal-attn tune` searches: options of an experiment, each with a range of numbers or choices."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from temporal_attn.types import UserError

if TYPE_CHECKING:
    import optuna

__all__ = ["Dimension", "merged", "overlay", "read_space"]


@dataclass(frozen=True)
class Dimension:
    """What one option is drawn from: a range of numbers, or choices.

    Args:
        name: The option with dots, as in the YAML: ``model.init_args.lr``, or shorter ``model.lr``.
        low: Smallest number.
        high: Largest one; a range between two whole numbers holds whole numbers only.
        log: Whether to draw evenly on a logarithmic scale.
        choices: Instead of a range: any values that YAML can hold.

    Raises:
        UserError: It is neither a range nor choices.
    """

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        is_range = self.low is not None and self.high is not None and -math.inf < self.low <= self.high < math.inf
        if is_range == bool(self.choices):
            raise UserError(f"space: {self.name} needs either low and high, finite and low the smaller, or choices")
        if self.log and (self.low is None or self.low <= 0):
            raise UserError(f"space: {self.name} can only be logarithmic with low above 0")

    @classmethod
    def parse(cls, name: str, text: object) -> Dimension:
        """One entry of a search space.

        Args:
            name: The option.
            text: ``{low: 1e-5, high: 1e-2, log: true}`` or ``{choices: [mean, transformer]}``.

        Raises:
            UserError: It is something else.
        """
        if not isinstance(text, Mapping) or not set(text) <= {"low", "high", "log", "choices"}:
            raise UserError(f"space: {name} is {text!r}; it has to be {{low, high, log}} or {{choices: [...]}}")
        choices = text.get("choices", [])
        if not isinstance(choices, list):
            raise UserError(f"space: the choices of {name} have to be a list, not {choices!r}")
        low, high = (_number(name, text.get(key)) for key in ("low", "high"))
        return cls(name, low, high, bool(text.get("log", False)), tuple(choices))

    def draw(self, trial: optuna.Trial) -> Any:  # noqa: ANN401
        """A value for this trial; its record keeps choices as JSON, because they may be lists.

        Raises:
            UserError: The study has drawn from other choices before.
        """
        try:
            if self.low is None or self.high is None:
                return json.loads(trial.suggest_categorical(self.name, [json.dumps(one) for one in self.choices]))
            if isinstance(self.low, int) and isinstance(self.high, int):
                return trial.suggest_int(self.name, self.low, self.high, log=self.log)
            return trial.suggest_float(self.name, self.low, self.high, log=self.log)
        except ValueError as error:
            raise UserError(f"space: {self.name} was drawn otherwise in this study: {error}; name another") from None


def _number(name: str, value: object) -> float | None:
    """A number, also where YAML reads one without a dot, such as 1e-4, as text; whole ones stay whole."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    try:
        return float(str(value))
    except ValueError:
        raise UserError(f"space: {name} has the bound {value!r}, which is no number") from None


def read_space(words: Sequence[str]) -> list[Dimension]:
    """A search space.

    Args:
        words: YAML files that map options to ranges and choices, or single options such as
            ``model.lr={low: 1e-4, high: 1e-2, log: true}``; later ones replace earlier ones.

    Raises:
        UserError: A file cannot be read, or an entry is malformed.
    """
    entries: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        try:
            found = {name: yaml.safe_load(text)} if equals else yaml.safe_load(Path(word).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"space {word}: {error.strerror}; give a YAML file, or OPTION={{low: …, high: …}}"
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"space {word}: is no YAML: {' '.join(str(error).split())}") from None
        if not isinstance(found, Mapping):
            raise UserError(f"space {word}: has to map options to ranges or choices")
        entries.update((_full_name(str(option)), entry) for option, entry in found.items())
    if not entries:
        raise UserError("space: there is nothing to search")
    return [Dimension.parse(name, entry) for name, entry in entries.items()]


def _full_name(option: str) -> str:
    """``model.lr`` is short for ``model.init_args.lr``, as on the command line of `fit`."""
    place, _, rest = option.partition(".")
    is_short = place in ("model", "data") and not rest.startswith(("init_args.", "class_path"))
    return f"{place}.init_args.{rest}" if is_short else option


def overlay(values: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Options with dots as the nested YAML that `fit` takes after the experiment's own.

    Args:
        values: By option, such as ``{"model.init_args.lr": 0.01}``.
        base: The experiment's own. Of two YAMLs `fit` takes a mapping that is an argument, such as
            ``temporal_options``, from the later one alone, and so what the earlier one says in it is repeated.
    """
    nested: dict[str, Any] = {}
    for option, value in values.items():
        *path, last = option.split(".")
        place, known = nested, base
        for depth, key in enumerate(path):
            known = known.get(key) if isinstance(known, Mapping) else None
            is_argument = depth >= 2 and isinstance(known, Mapping)  # below model.init_args
            place = place.setdefault(key, copy.deepcopy(dict(known)) if is_argument and known else {})
        place[last] = value
    return nested


def merged(files: Sequence[str]) -> dict[str, Any]:
    """What YAML files say together, of which later ones go before earlier ones."""
    every: dict[str, Any] = {}
    for file in files:
        _take_over(every, yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}, depth=2)  # model, init_args
    return every


def _take_over(every: dict[str, Any], own: Mapping[str, Any], depth: int) -> None:
    for key, value in own.items():
        if depth and isinstance(value, Mapping) and isinstance(every.get(key), dict):
            _take_over(every[key], value, depth - 1)
        else:
            every[key] = value
