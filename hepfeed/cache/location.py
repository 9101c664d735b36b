"""Where caches lie."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["default_root"]


def default_root() -> Path:
    """``$HEPFEED_CACHE``, else ``hepfeed/events`` in the user's cache directory."""
    named = os.environ.get("HEPFEED_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "hepfeed" / "events"
