"""Types of the native kernels on images."""
