"""Kernels for CUDA devices, as functions on torch tensors.

Each function has the signature of an operator of :mod:`hepfeed.sparse` and does the same on the device of its tensors:
queued on torch's current stream, with memory that torch allocates.
"""
