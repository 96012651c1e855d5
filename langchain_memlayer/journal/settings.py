"""The settings that are kept with the journal, by name."""

from __future__ import annotations

from typing import Literal

Area = Literal["items", "memories"]
"""The two halves of a journal: items of a BaseStore, and memories. Each has an embedder of its own."""

STORE_ID = "store_id"
CREATED_AT = "created_at"

SCRUB_DUE = "scrub"
"""It is there from an erasing commit until the journal's `scrub` has made it physical."""

IMPORT_NOTE = "import"
"""It is there while an import is unfinished; such a journal is opened for nothing else."""

VECTORS_SIGN = "vectors"
"""The sign of the row ids of the vectors that are in use, "1" when it is not there; `staging` says why."""

STAGING_NOTE = "reembed"
"""It is there while vectors of another embedder are staged, or those that were in use before are removed."""


def embedder_key(area: Area) -> str:
    """The embedder that wrote the vectors of an area."""
    return f"embedder:{area}"


def outbox_key(area: Area) -> str:
    """How far a foreign vector store was brought."""
    return f"outbox:{area}"


def purge_key(area: Area) -> str:
    """The rows of which an emptied journal still has to tell the foreign store that they are gone."""
    return f"purge:{area}"


def points_key(item: int) -> str:
    """How many points a row has in the foreign store, where it is not one."""
    return f"points:{item}"
