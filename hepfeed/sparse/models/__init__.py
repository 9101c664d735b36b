"""Networks of sparse convolutions."""

from hepfeed.sparse.models.block import ResBlock
from hepfeed.sparse.models.resnet import SparseResNet
from hepfeed.sparse.models.unet import SparseUNet

__all__ = ["ResBlock", "SparseResNet", "SparseUNet"]
