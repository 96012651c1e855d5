"""The parts of `StoreConformance`, one module for each part of the contract."""

import pytest

# Only test modules get pytest's detailed assertion messages by themselves.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{part}"
        for part in ("batch", "concurrency", "defects", "filters", "index", "items", "namespaces", "search", "ttl")
    )
)
