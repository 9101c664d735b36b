"""Parts: the files of a cache, plain HDF5 whose data sets are contiguous, so that an event is one run of bytes.

A part holds some hundreds or thousands of processed events, in any order.  With h5py alone::

    with h5py.File("part-0123456789abcdef.h5") as part:
        part["event"]            # (n, 2) int64: file of the manifest's list, row in that file
        part["label"]            # (n,) int64
        part["weight"]           # (n,) float32, if events have weights
        part["ECAL"][i]          # a dense key: data set (n, *shape)
        group = part["HCAL"]     # an image that is mostly 0: group with the attribute "shape"
        some = slice(group["offsets"][i], group["offsets"][i + 1])
        group["coords"][some]    # flat cell numbers in C order of the shape, as small an unsigned integer as holds them
        group["values"][some]    # the values there, of the dtype that the image has; all other cells are 0
        part["hits"]             # a jagged key: group with "values" (total, *item) and "offsets" (n + 1,) int64
        part["tracks"]           # a padded key: group with "values" (n, length, *item) and "mask" (n, length) bool
        part["voxels"]           # sparse sites: group with "coords", "values" (total, channels), "offsets" and "shape"
        part["graph"]            # group with "edges" (total, 2) int32 within the event, "offsets", and "nodes" (n + 1,)

A key such as ``"event/weight"``, beside an array ``"event"``, lies in ``"event.weight"``.

Keys keep their dtype.  Whether an image is a data set or a group is chosen for each part by its occupancy.  The group
``_cache`` has ``checksums (blocks, columns) uint64``: xxh3 of the bytes that each block of ``block_events`` events has
in each of its ``columns``; and ``removed (m, 2)``, events that the steps took out.  All data sets that tell where
events lie have their own xxh3 as an attribute.

A part is written under another name, synced and renamed, so that a file with the name of a part is whole.
"""
