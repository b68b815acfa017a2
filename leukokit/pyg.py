"""What is used of torch-geometric, whose import warns of parts of torch that it still uses."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric.data import Batch, Data
    from torch_geometric.nn import GATv2Conv

__all__ = ["Batch", "Data", "GATv2Conv"]
