"""Tokenizers that users bring for their models, before the ones this package has."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from os import PathLike, fspath
from pathlib import Path

import anyio.to_thread

from streamguard.errors import ConfigurationError
from streamguard.tokenizers.huggingface import tokenizer_at
from streamguard.tokenizers.models import encoding_for_model
from streamguard.tokenizers.registry import ModelTokenizer, tokenizer_for_model, warm_up

Paths = Mapping[str, str | PathLike[str]]
"""A model's name, or a pattern like ``llama-3*``, to its ``tokenizer.json``."""


class Tokenizers:
    """Finds a model's tokenizer: a user's own by name or pattern, else the built-in one."""

    def __init__(self, paths: Paths | None = None) -> None:
        """Exact names go before patterns, patterns in their order; case counts.

        Raises:
            ConfigurationError: a file is not there. They are read when first needed.
        """
        self._paths = {name: _checked(name, path) for name, path in (paths or {}).items()}

    def path_of(self, model: str) -> Path | None:
        """The file a user gave for the model."""
        if model in self._paths:
            return self._paths[model]
        found = (path for name, path in self._paths.items() if fnmatchcase(model, name))
        return next(found, None)

    def for_model(self, model: str) -> ModelTokenizer:
        """The model's tokenizer; exact where a user gave it, or the encoding is known.

        Raises:
            ConfigurationError: the file is no tokenizer, or the extra is not installed.
        """
        path = self.path_of(model)
        if path is None:
            return tokenizer_for_model(model)
        return ModelTokenizer(tokenizer_at(path), exact=True)

    async def warm_up(self, model: str) -> None:
        """Load what ``for_model`` needs in a thread.

        Raises:
            ConfigurationError: see ``for_model``.
        """
        if self.path_of(model) is None:
            await warm_up([encoding_for_model(model).encoding])
        else:
            await anyio.to_thread.run_sync(self.for_model, model)


def _checked(name: object, path: object) -> Path:
    if not isinstance(name, str) or not isinstance(path, (str, PathLike)):
        message = f"tokenizers: {name!r} must be a model's name with the path of a tokenizer.json"
        raise ConfigurationError(message)
    file = Path(fspath(path))
    if not file.is_file():
        raise ConfigurationError(f"tokenizers: {name!r}: there is no file {file}")
    return file
