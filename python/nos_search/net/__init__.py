"""These networks are what a task trains as its child; they are known by name."""

from .base import Inputs, Net, Weights
from .convnet import ConvNet
from .registry import NETS, Spec, build, fitting, parse

__all__ = ["NETS", "ConvNet", "Inputs", "Net", "Spec", "Weights", "build", "fitting", "parse"]
