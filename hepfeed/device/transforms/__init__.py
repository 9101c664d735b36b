"""What the steps of :mod:`hepfeed.transforms` do on a device, one theme a file: batches of torch tensors in and out."""
