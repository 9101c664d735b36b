"""Where caches lie."""

from __future__ import annotations

import os
from pathlib import Path

from hepfeed.store import user_cache

__all__ = ["default_root"]


def default_root() -> Path:
    """``$HEPFEED_CACHE``, else ``hepfeed/events`` in the user's cache directory."""
    named = os.environ.get("HEPFEED_CACHE")
    if named:
        return Path(named)
    return user_cache() / "events"
