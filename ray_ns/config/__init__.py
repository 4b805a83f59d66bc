"""Every setting of a run with its unit, range and default: one frozen section each, checked before anything starts.

``read`` reads a config from a file, ``show`` prints the schema as commented YAML.
"""

from ray_ns.config.cluster import Cluster
from ray_ns.config.config import Config
from ray_ns.config.data import FED, MIDDLE, CorpusName, Data
from ray_ns.config.given import GivenTeacher
from ray_ns.config.labelling import Label, Select, Views
from ray_ns.config.methods import MetaPseudoLabels, MetaStudent, Method, ReducedStudent, TwoViewStudent, Uda, UdaStudent
from ray_ns.config.results import Settings, changes
from ray_ns.config.run import Control, Run
from ray_ns.config.schedules import check_schedules, of_other_steps
from ray_ns.config.schema import decided
from ray_ns.config.training import Finetune, Fixing, Fixres, Model, Noise, Optimizer, Student, Training

__all__ = [
    "FED",
    "MIDDLE",
    "Cluster",
    "Config",
    "Control",
    "CorpusName",
    "Data",
    "Finetune",
    "Fixing",
    "Fixres",
    "GivenTeacher",
    "Label",
    "MetaPseudoLabels",
    "MetaStudent",
    "Method",
    "Model",
    "Noise",
    "Optimizer",
    "ReducedStudent",
    "Run",
    "Select",
    "Settings",
    "Student",
    "Training",
    "TwoViewStudent",
    "Uda",
    "UdaStudent",
    "Views",
    "changes",
    "check_schedules",
    "decided",
    "of_other_steps",
]
