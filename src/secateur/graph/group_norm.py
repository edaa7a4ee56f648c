"""The choice that GroupNorm leaves: what of it is removed at a time."""

from enum import Enum


class GroupNormMode(Enum):
    """Which channels of a GroupNorm leave together.

    A layer of C channels under a GroupNorm of G norm groups has G units one way and C / G the other. Norm groups of one
    channel leave whole in either mode, and so do those of a norm without a scale.
    """

    WHOLE = "whole"  # all channels of a norm group: exact
    EVEN = "even"  # one channel of each norm group: what stays is normalised by statistics of fewer channels
