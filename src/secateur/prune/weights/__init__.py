"""Single-weight sparsity: which weights may leave, which stay, and training that keeps it so."""

from secateur.prune.weights.choosing import magnitude_masks as magnitude_masks
from secateur.prune.weights.choosing import random_masks as random_masks
from secateur.prune.weights.masks import LayerDensity as LayerDensity
from secateur.prune.weights.masks import WeightMasks as WeightMasks
from secateur.prune.weights.prunable import CONVOLUTIONS as CONVOLUTIONS
from secateur.prune.weights.prunable import PrunableWeight as PrunableWeight
from secateur.prune.weights.prunable import output_weights as output_weights
from secateur.prune.weights.prunable import prunable_weights as prunable_weights
from secateur.prune.weights.rewinding import rewind_ as rewind_
from secateur.prune.weights.scopes import LayerWise as LayerWise
from secateur.prune.weights.scopes import NetworkWise as NetworkWise
from secateur.prune.weights.scopes import Pattern as Pattern
from secateur.prune.weights.scopes import Scope as Scope
