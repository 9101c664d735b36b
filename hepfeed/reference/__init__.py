"""Plain NumPy forms of what native kernels and steps compute: they define it, and tests compare with them."""
