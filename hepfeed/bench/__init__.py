"""Benchmarks that come with hepfeed: what ``hepfeed bench`` measures."""
