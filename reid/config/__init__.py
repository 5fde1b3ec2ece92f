"""Every option of the project, declared once.

Three notions (config/README.md): a *training* is everything that changes weights, a *variant*
is a row of the ablation table (a training and an inference setting), a *dataset* is where the
crops lie. `training` declares the first, `experiment` the others, `files` reads YAML.
"""

from reid.config.base import Section, chosen, nearest
from reid.config.experiment import (
    OPEN_CLIP_PREFIX,
    Backbone,
    Config,
    Dataset,
    Demo,
    Protocol,
    Report,
    ReRanking,
    Runtime,
    Tune,
    Variant,
)
from reid.config.files import STANDARD, add_flags, load, named, parse
from reid.config.training import (
    Adapters,
    Augment,
    Clip,
    ColorJitter,
    FineTune,
    Losses,
    Model,
    Neck,
    Pooling,
    Prompts,
    Schedule,
    Stage1,
    Stage2,
    Training,
    Validation,
)
