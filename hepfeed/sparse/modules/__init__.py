"""Modules over sparse tensors, one family a file; :mod:`hepfeed.sparse` has their names."""
