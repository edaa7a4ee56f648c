"""One thread and no deadlines: results do not depend on the machine's cores, nor on who else uses them."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("secateur", deadline=None)
settings.load_profile("secateur")
