"""The cache: what comes out of the steps before the cache point, kept in files that any user of h5py can read.

A cache is a directory ``ROOT/KEY`` with parts (:mod:`hepfeed.parts`) and a manifest, which is written last.  Its key is
made of all that its contents depend on, so that another file, another option of a step, or another line in a user's
function is another cache, and a stale one is never read.
"""
