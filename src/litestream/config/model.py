"""What the parts of a configuration are: frozen values with typed attributes, built from text or plain Python.

An own base of a page instead of a library for models: a replicator has to have its first object stored in the time in
which such a library is imported, and a thousand databases keep a thousand of these, each with only what was given.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, Union, dataclass_transform, get_args, get_origin

Reader = Callable[[object], object]
"""Returns the value as it is kept. Raises `ValueError`, or `ValidationError` for what has parts."""


class Check:
    """In an annotation: what reads the value before its type is looked at. Of several the last one comes first."""

    __slots__ = ("read",)

    def __init__(self, read: Reader) -> None:
        self.read = read


class JsonSchema:
    """In an annotation: what the JSON schema says of the value, instead of what its type says."""

    __slots__ = ("schema",)

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema


class SecretStr:
    """A text that no repr and no message shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """The text itself: for the one that needs it."""
        return self._text

    def __str__(self) -> str:
        return "**********"

    def __repr__(self) -> str:
        return "SecretStr('**********')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


class Detail(NamedTuple):
    """One thing that is wrong. `loc`: keys of the file and numbers of items, from the model on."""

    loc: tuple[str | int, ...]
    text: str
    value: object = None
    """What was given there; it may be a secret."""
    cause: ValueError | None = None


class ValidationError(ValueError):
    """Everything that is wrong with the values of a model. Its text repeats no value."""

    def __init__(self, details: list[Detail]) -> None:
        self.details = details
        super().__init__("\n".join(": ".join(filter(None, (".".join(map(str, d.loc)), d.text))) for d in details))


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Model:
    """Frozen, strict about names, silent about secrets.

    A subclass has annotations, as a dataclass, and overrides `_before` and `_after` for rules between values. Attribute
    `sync_interval` is `sync-interval` in a file; both are taken. Only what differs from the class is kept.
    """

    KEYS: ClassVar[Mapping[str, str]] = {}
    """The keys of the file by attribute, in the order of the class, those of its bases first."""
    HIDDEN: ClassVar[Collection[str]] = ()
    """Attributes that neither a repr nor a dump has."""
    _NAMES: ClassVar[Mapping[str, str]] = {}
    """The attribute by key and by itself."""
    _REQUIRED: ClassVar[tuple[str, ...]] = ()
    _READERS: ClassVar[dict[str, Reader]] = {}
    """Made when first needed: most keys of a store are never given."""

    def __init_subclass__(cls) -> None:
        own = [
            name
            for name, kind in inspect.get_annotations(cls).items()
            if not name.startswith("_") and not kind.startswith("ClassVar")
        ]
        cls.KEYS = {**cls.KEYS, **{name: "dbs" if name == "databases" else name.replace("_", "-") for name in own}}
        cls._NAMES = {key: name for name, key in cls.KEYS.items()} | {name: name for name in cls.KEYS}
        cls._REQUIRED = tuple(name for name in cls.KEYS if not hasattr(cls, name))
        cls._READERS = {}

    def __init__(self, **values: Any) -> None:  # noqa: ANN401 - whatever the caller has; it is checked
        """Raises `ValidationError` for everything that is wrong."""
        self.__dict__.update(type(self)._read(values))
        try:
            self._after()
        except ValueError as error:
            raise ValidationError(_details(error, values)) from None

    @classmethod
    def model_validate(cls, values: object) -> Self:
        """The model of these values, by key or attribute; one that is a model already is itself."""
        if isinstance(values, cls):
            return values
        if not isinstance(values, Mapping):
            raise ValidationError([Detail((), "must be a section of keys with values", values)])
        return cls(**values)

    @classmethod
    def _before(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The values that are read, instead of those that were given. Raises `ValueError`."""
        return values

    def _after(self) -> None:
        """Check the whole. Raises `ValueError`."""

    @classmethod
    def _read(cls, given: dict[str, Any]) -> dict[str, Any]:
        try:
            values = cls._before(given)
        except ValueError as error:
            raise ValidationError(_details(error, given)) from None
        found: dict[str, Any] = {}
        wrong: dict[str, list[Detail]] = {}
        for key, value in values.items():
            name = cls._NAMES.get(key)
            if name is None:
                wrong[key] = [Detail((key,), "unknown key", value)]
                continue
            try:
                found[name] = (cls._READERS.get(name) or cls._reader(name))(value)
            except ValueError as error:
                wrong[name] = _details(error, value, cls.KEYS[name])
        for name in cls._REQUIRED:
            if name not in found and name not in wrong:
                wrong[name] = [Detail((cls.KEYS[name],), "is missing", values)]
        if wrong:
            order = [*cls.KEYS, *wrong]
            raise ValidationError([detail for name in sorted(wrong, key=order.index) for detail in wrong[name]])
        return found

    @classmethod
    def _reader(cls, name: str) -> Reader:
        cls._READERS[name] = reader = reader_of(cls.type_of(name))
        return reader

    @classmethod
    def type_of(cls, name: str) -> Any:  # noqa: ANN401 - a type, or what typing has for it
        """The annotation of an attribute."""
        owner = next(base for base in cls.__mro__ if name in inspect.get_annotations(base))
        return eval(inspect.get_annotations(owner)[name], vars(sys.modules[owner.__module__]))  # noqa: S307 our own

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return False
        mine, others = self.__dict__, other.__dict__
        return mine == others or all(getattr(self, name) == getattr(other, name) for name in {**mine, **others})

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.KEYS))

    def __repr__(self) -> str:
        """Without what is not set: most keys of a store never are."""
        shown = ", ".join(f"{name}={value!r}" for name, value in self._pairs() if value is not None)
        return f"{type(self).__name__}({shown})"

    def _pairs(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.KEYS if name not in self.HIDDEN]

    def given(self) -> dict[str, Any]:
        """The values that are not None, by the names of the file; secrets stay hidden in their type."""
        pairs = {key: getattr(self, name) for name, key in self.KEYS.items()}
        return {key: value for key, value in pairs.items() if value is not None}

    def model_copy(self, *, update: Mapping[str, object]) -> Self:
        """The same with other values of some attributes, which are not checked."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, **update)
        return copy

    def model_dump(self, *, exclude: Collection[str] = (), exclude_none: bool = False) -> dict[str, Any]:
        """The values by attribute, parts as dicts too; secrets stay hidden in their type."""
        pairs = {name: _dumped(value, exclude_none) for name, value in self._pairs() if name not in exclude}
        return {name: value for name, value in pairs.items() if value is not None or not exclude_none}


def _dumped(value: object, exclude_none: bool) -> object:
    if isinstance(value, Model):
        return value.model_dump(exclude_none=exclude_none)
    return tuple(_dumped(item, exclude_none) for item in value) if isinstance(value, tuple) else value


def _details(error: ValueError, value: object, *loc: str | int) -> list[Detail]:
    """What an error says, seen from outside."""
    if isinstance(error, ValidationError):
        return [detail._replace(loc=(*loc, *detail.loc)) for detail in error.details]
    return [Detail(loc, str(error), value, error)]


def reader_of(kind: Any) -> Reader:  # noqa: ANN401 - a type, or what typing has for it
    """What reads values of a type: plain ones, models, tuples of one type, choices, unions with None, and those with
    checks."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        checks = [check.read for check in kind.__metadata__ if isinstance(check, Check)]
        return _chain([*reversed(checks), reader_of(args[0])])
    if origin in (Union, types.UnionType):
        (inside,) = (reader_of(arg) for arg in args if arg is not types.NoneType)
        return lambda value: None if value is None else inside(value)
    if origin is tuple:
        return _items(reader_of(args[0]))
    if origin is Literal:
        return _choice(args)
    return kind.model_validate if issubclass(kind, Model) else _plain(kind)


def _chain(readers: list[Reader]) -> Reader:
    def read(value: object) -> object:
        for reader in readers:
            value = reader(value)
        return value

    return read


def _items(reader: Reader) -> Reader:
    def read(value: object) -> object:
        if not isinstance(value, (tuple, list)):
            raise ValueError("must be a list")  # noqa: TRY004 - it is collected with the others
        found, wrong = [], []
        for number, item in enumerate(value):
            try:
                found.append(reader(item))
            except ValueError as error:
                wrong += _details(error, item, number)
        if wrong:
            raise ValidationError(wrong)
        return tuple(found)

    return read


def _choice(options: tuple[object, ...]) -> Reader:
    def read(value: object) -> object:
        if value not in options:
            raise ValueError(f"must be one of {', '.join(map(str, options))}")
        return value

    return read


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", SecretStr: "text"}


def _plain(kind: type) -> Reader:
    def read(value: object) -> object:
        if kind is SecretStr and isinstance(value, str):
            return SecretStr(value)
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        raise ValueError(f"must be {_WORDS[kind]}")

    return read
