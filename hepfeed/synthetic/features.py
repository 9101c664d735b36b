"""Scalar features of calorimeter images."""

from __future__ import annotations

import numpy as np

from hepfeed.synthetic.event import Array


def calorimeter_features(ecal: Array, hcal: Array) -> dict[str, Array]:
    """Sums, ratio, hit counts and moments of ``ecal (N, x, y, z)`` and ``hcal (N, x, y, z)``.

    With ``E_i`` the energy of cell ``i`` and ``u_i`` its index along an axis ``U`` of X, Y, Z, for both
    ``ECAL`` and ``HCAL``:

    * ``ECAL_E`` = sum of ``E_i``; ``ECAL_nHits`` = number of cells with ``E_i > 0``.
    * ``ECALMoment1U`` = sum of ``E_i u_i`` over sum of ``E_i``: the barycentre in cells.
    * ``ECALMoment2U`` = sum of ``E_i (u_i - ECALMoment1U)^2`` over sum of ``E_i``: the variance in cells
      squared.
    * ``ECAL_HCAL_ERatio`` = ``HCAL_E / ECAL_E``, small for electromagnetic showers.

    A calorimeter without energy has moments that are not a number, and a ratio that is infinite or not a
    number.

    Returns:
        Name to ``(N,) float32``, counts int32.
    """
    features: dict[str, Array] = {}
    for name, image in (("ECAL", ecal), ("HCAL", hcal)):
        axes = (1, 2, 3)
        features[f"{name}_E"] = total = image.sum(axis=axes, dtype=np.float64)
        features[f"{name}_nHits"] = np.count_nonzero(image, axis=axes).astype(np.int32)
        for axis, letter in zip(axes, "XYZ", strict=True):
            profile = image.sum(axis=tuple(other for other in axes if other != axis), dtype=np.float64)
            index = np.arange(profile.shape[1])
            with np.errstate(invalid="ignore"):
                first = profile @ index / total
                second = np.sum(profile * (index - first[:, None]) ** 2, axis=1) / total
            features[f"{name}Moment1{letter}"], features[f"{name}Moment2{letter}"] = first, second
    with np.errstate(divide="ignore", invalid="ignore"):
        features["ECAL_HCAL_ERatio"] = features["HCAL_E"] / features["ECAL_E"]
    return {name: value if value.dtype == np.int32 else value.astype(np.float32) for name, value in features.items()}
