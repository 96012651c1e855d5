"""Every error that this package raises.

    MemLayerError
    ├── InvalidInput (ValueError)          what the caller passed cannot be used
    │   └── InvalidFilter                  a filter that is no filter
    ├── ConfigurationError (ValueError)    settings that contradict each other, or name something unknown
    │   ├── MissingDependency (ImportError)  an optional package is not installed
    │   └── EmbedderMismatch               the folder was written with another embedder
    ├── MemoryNotFound (KeyError, ValueError)  no memory has this id
    ├── ScopeRequired (ValueError)         a call that needs `user_id`, `agent_id` or `run_id`
    ├── EmbeddingError                     the embedder failed, or its vectors cannot be used
    ├── ExtractionError                    the chat model failed, or its reply cannot be read
    ├── JournalError                       the journal cannot be opened, read or written
    │   ├── NotAStore                      the path holds something else
    │   ├── SchemaTooNew                   a newer release wrote this folder
    │   └── JournalClosed                  used after `close()`
    ├── VectorStoreError                   a foreign vector store failed; the journal has everything
    └── SnapshotError                      a derived file is damaged; it is rebuilt, callers never see this

Each message says what to do next.
"""

from __future__ import annotations


class MemLayerError(Exception):
    """The root of all errors of this package."""


class InvalidInput(MemLayerError, ValueError):
    """What the caller passed cannot be used; nothing was written."""


class InvalidFilter(InvalidInput):
    """A filter that is no filter."""


class ConfigurationError(MemLayerError, ValueError):
    """Settings that contradict each other, or name something unknown."""


class MissingDependency(ConfigurationError, ImportError):
    """An optional package is not installed; the message has the install line."""


class EmbedderMismatch(ConfigurationError):
    """The folder was written with another embedder."""


class MemoryNotFound(MemLayerError, KeyError, ValueError):
    """No memory has this id."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ScopeRequired(MemLayerError, ValueError):
    """A call that needs at least one of `user_id`, `agent_id` and `run_id`."""


class EmbeddingError(MemLayerError):
    """The embedder failed, or returned vectors that cannot be used; messages are kept, and found by their words."""


class ExtractionError(MemLayerError):
    """The chat model failed, or its reply cannot be read; messages are kept, and read later.

    Attributes:
        reply: The model's reply as text, or None when there was none.
    """

    def __init__(self, message: str, *, reply: str | None = None) -> None:
        super().__init__(message)
        self.reply = reply


class JournalError(MemLayerError):
    """The journal cannot be opened, read or written."""


class NotAStore(JournalError):
    """The path holds something that is not a store."""


class SchemaTooNew(JournalError):
    """A newer release of this package wrote the folder."""


class JournalClosed(JournalError):
    """The store was used after `close()`."""


class VectorStoreError(MemLayerError):
    """A foreign vector store failed or cannot be reached; the journal has everything and delivers it later."""


class SnapshotError(MemLayerError):
    """A derived file is missing, torn or foreign; it is discarded and rebuilt."""


MOST_SHOWN = 80
"""How many characters of a value an error shows: it may be a megabyte of somebody's text."""


def shown(value: object) -> str:
    """A value as an error shows it."""
    try:
        return cut(repr(value))
    except ValueError:  # Python writes no integer of thousands of digits
        return f"{type(value).__name__} of thousands of digits"
    except Exception:  # noqa: BLE001 - the caller's own class: what is wrong with its value is still to be told
        return f"a {type(value).__name__}"


def written(number: object, where: str) -> str:
    """A number or a UUID as text; `InvalidInput` when it has more digits than Python writes."""
    try:
        return str(number)
    except ValueError as error:
        raise InvalidInput(f"{cut(where)} has thousands of digits; pass a shorter number, or a string.") from error


def cut(text: str) -> str:
    """A text as an error shows it, such as the place where a value stands."""
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"
