"""The target of the regression branch: how deep in its nucleus a pixel lies."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from secateur.data.instances import LabelArray


def distance_targets(labels: LabelArray) -> npt.NDArray[np.float32]:
    """Return the distance of every pixel to the edge of its own nucleus, over the nucleus' largest.

    The Euclidean distance to the nearest pixel that is not of the same nucleus, a touching neighbour's included, so
    that two nuclei that touch are two hills with a valley between them. Divided by its maximum per nucleus (our
    choice): small nuclei are as high as large ones, and count as much in the loss. The border of the image is no
    edge: a nucleus that it cuts goes on behind it.

    Args:
        labels: ``(H, W)``, 0 = background. A label may have several parts, which share one maximum.

    Returns:
        float32 ``(H, W)`` in (0, 1] on nuclei and 0 outside; 1 throughout where one label fills the image.
    """
    targets = np.zeros(labels.shape, dtype=np.float32)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue  # a gap in the numbering
        wide = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)  # slices stop at the border
        own = labels[wide] == label
        distance = ndimage.distance_transform_edt(own) if not own.all() else own.astype(np.float64)
        targets[wide][own] = (distance[own] / distance.max()).astype(np.float32)
    return targets
