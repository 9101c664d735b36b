"""``hepfeed bench feed``: sets of events, the libraries that feed them, and how they are measured side by side."""
