"""Training: the loop, its checkpoints, and distillation from a dense teacher."""

from secateur.train.loop import FitResult as FitResult
from secateur.train.loop import TrainingSet as TrainingSet
from secateur.train.loop import fit as fit
from secateur.train.recipe import DistillationRecipe as DistillationRecipe
from secateur.train.recipe import TrainRecipe as TrainRecipe
