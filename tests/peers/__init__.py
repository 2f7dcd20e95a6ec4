"""What users of PyTorch's and pytorch_optimizer's optimizers rely on, asked of ours: `make peers`.

Collected only when this folder is named on pytest's command line, as it needs packages that nothing else does.
"""
