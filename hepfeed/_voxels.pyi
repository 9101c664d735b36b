"""Types of the native kernels on voxels."""
