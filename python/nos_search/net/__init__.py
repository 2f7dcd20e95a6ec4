"""These networks are what a task trains as its child; they are known by name."""

from .base import InputKind, Inputs, Net, Weights
from .convnet import ConvNet
from .registry import NETS, Spec, build, fitting, parse

__all__ = ["NETS", "ConvNet", "InputKind", "Inputs", "Net", "Spec", "Weights", "build", "fitting", "parse"]
