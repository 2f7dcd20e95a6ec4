"""Owns the fixed parts of an exported optimizer: the templates that pytorch.py fills in.

What is put into a template is a name, a number or a line of doc that pytorch.py has made fit for its place.
"""

from __future__ import annotations

from typing import Final

HEADER: Final = '''"""{class_name}: {summary}

{text}

Stand-alone PyTorch optimizer written by nos_ext.
"""

import math

import torch'''

NUMBER: Final = """def _number(x):
    x = x.double() if torch.is_tensor(x) else torch.tensor(x, dtype=torch.float64, device="cpu")
    return x.reshape(())"""

UPDATE: Final = '''def update({arguments}):
    """One step of the rule: the new {results}. Scalars are tensors of dimension 0 in float64."""
{body}'''

CLASS: Final = '''class {class_name}(torch.optim.Optimizer):
    """{summary}

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
{argument_docs}        maximize: ascend instead of descend.
    """

    _STATES = {states}
{per_tensor}    _NUMBERS = {numbers}

    def __init__(
        self,
        params,
        lr{rate},
        *,
{signature}        maximize=False,
    ):
        if torch.is_tensor(lr) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not lr >= 0:
            raise ValueError(f"Invalid learning rate: {{lr}}")
{checks}        defaults = {{
            "lr": lr,
{defaults}            "maximize": maximize,
            "differentiable": False,  # torch adds it to copies
        }}
        torch.optim.Optimizer.__init__(self, params, defaults)

    def __setstate__(self, state):
        super().__setstate__(state)
        for group in self.param_groups:  # older checkpoints lack the keys that came later
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        for entry in self.state.values():
            if "step" in entry:  # a number in some checkpoints
                entry["step"] = _number(entry["step"]).to("cpu", copy=True)

    def _check(self, saved):
        """ValueError for a checkpoint from which no step could go on."""

        def number(x):
            try:
                return float(_number(x))
            except (RuntimeError, TypeError, ValueError):
                return math.nan

        def require(valid, key, value, wanted):
            if not valid:
                raise ValueError(f"{{key}} of the checkpoint is {{' '.join(repr(value).split()):.80}}, not {{wanted}}")

        for group, old in zip(self.param_groups, saved["param_groups"]):
            old = {{**group, **old}}
            require(number(old["lr"]) >= 0, "lr", old["lr"], "a number that is not negative")
            require(number(old["maximize"]) in (0, 1), "maximize", old["maximize"], "True or False")
            for name in self._NUMBERS:
                require(not math.isnan(number(old[name])), name, old[name], "a number")
{saved_checks}            for p, key in zip(group["params"], old["params"]):
                entry = saved["state"].get(key)
                if entry:
                    step, place = entry.get("step"), f"of parameter {{key}}"
                    require(number(step) >= 0 and number(step) % 1 == 0, f"step {{place}}", step, "a count of steps")
                    for name in self._STATES:
                        x, shape = entry.get(name), {shape}
                        fits = torch.is_tensor(x) and x.shape == shape
                        require(fits, f"{{name}} {{place}}", getattr(x, "shape", x), f"a tensor of {{shape}}")

    def load_state_dict(self, state_dict):
        """As in torch, but no state is rounded: that of half-precision parameters is float32, and step float64."""
        given = []

        def check(optimizer, state_dict):
            optimizer._check(state_dict)
            given.append(state_dict)

        def restore(optimizer):
            params = [p for group in optimizer.param_groups for p in group["params"]]
            keys = [key for group in given[0]["param_groups"] for key in group["params"]]
            for p, key in zip(params, keys):
                for name, value in given[0]["state"].get(key, {{}}).items():
                    if name in self._STATES:
                        dtype = torch.promote_types(p.dtype, torch.float32)
                        old = torch.empty_like(p, dtype=dtype, memory_format=torch.preserve_format)
{empty_number}                        optimizer.state[p][name] = old.copy_(value)
                    elif name == "step":  # torch makes it float32 in groups that are fused or capturable
                        optimizer.state[p][name] = _number(value).to("cpu", copy=True)

        hooks = [
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(torch.no_grad()(restore), prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def step(self, closure=None):
        """Perform one step. `closure`, if given, computes the loss again and returns it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        tensor = -1
{start}        for group in self.param_groups:
            numbers = {{name: _number(group[name]) for name in self._NUMBERS}}
            for p in group["params"]:
                tensor += 1
                if {skipped}:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError("{class_name} does not support sparse gradients")
                state = self.state[p]
                dtype = torch.promote_types(p.dtype, torch.float32)
                if not state:
                    state["step"] = _number(0.0)
                    for name in self._STATES:
                        state[name] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)
{zero_numbers}                state["step"] += 1
                g = -p.grad if group["maximize"] else p.grad
                old = [p, *[state[name] for name in self._STATES]]
{states_by_name}                new = update(
{tensors}                    **numbers,
                    t=state["step"],
{extra}                )
{finish}        return loss
'''

# What stands in CLASS depends on whether there are reductions, and states that are one number per tensor.
PER_TENSOR: Final = """    _PER_TENSOR = {names}  # states that are one number for each parameter
"""
SHAPE: Final = "torch.Size() if name in self._PER_TENSOR else p.shape"
EMPTY_NUMBER: Final = """                        if name in self._PER_TENSOR:
                            old = torch.empty((), dtype=dtype, device=p.device)
"""
ZERO_NUMBERS: Final = """                    for name in self._PER_TENSOR:
                        state[name] = torch.zeros((), dtype=dtype, device=p.device)
"""
TENSORS: Final = """                    *[x.to(dtype) for x in (p, g, *old[1:])],
"""
STATES: Final = """                states = [(name, state[name]) for name in self._STATES]
"""
TENSORS_AND_NUMBERS: Final = """                    *[x.to(dtype) for x in (p, g)],
                    *[x.double() if name in self._PER_TENSOR else x.to(dtype) for name, x in states],
"""
FINISH: Final = """                for x, value in zip(old, new):
                    x.copy_(value)
"""
START_ALL: Final = """        updates = []
"""
FINISH_ALL: Final = """                updates.append((old, new))
        for (old, _), new in zip(updates, _together([new for _, new in updates])):
            for x, value in zip(old, new):
                x.copy_(value)
"""

TOGETHER: Final = '''def _together(updates):
    """Runs updates side by side. Where one yields a function, that is taken of the tensors of all parameters."""
    value = None
    while True:
        asked, results = [], []
        for update in updates:
            try:
                asked.append(update.send(value))
            except StopIteration as stop:
                results.append(stop.value)
        if not asked:
            return results
        device = asked[0][1].device
        operands = [[x.double().flatten().to(device) for x in row] for row in list(zip(*asked))[1:]]
        value = asked[0][0](*[torch.cat(row) for row in operands])'''

DRAWS: Final = '''def _words(p, seed, step, tensor, site):
    """Philox4x32-10: a 32-bit word for every element of p. int64 holds the unsigned arithmetic."""
    mask = 0xFFFFFFFF
    q = torch.arange((p.numel() + 3) // 4, dtype=torch.int64, device=p.device)
    c0, c1 = q & mask, (q >> 32 & 0xFFFFF) | site << 20
    c2, c3 = torch.full_like(q, tensor), torch.full_like(q, step & mask)
    k0, k1 = seed & mask, seed >> 32 & mask

    def multiply(a, b):  # the high and the low word of the product
        x, y = a * (b >> 16), a * (b & 0xFFFF)
        return x + (y >> 16) >> 16, ((x & 0xFFFF) << 16) + y & mask

    for _ in range(10):
        (h0, l0), (h1, l1) = multiply(c0, 0xD2511F53), multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0
        k0, k1 = k0 + 0x9E3779B9 & mask, k1 + 0xBB67AE85 & mask
    return torch.stack([c0, c1, c2, c3], dim=1)


def _draw(kind, p, seed, step, tensor, site):
    """Uniform draws from [0, 1) or normal ones, numbered in the order of p's elements in memory."""
    words = _words(p, seed, step, tensor, site).double()
    if kind == "normal":  # Box-Muller
        radius = torch.sqrt(-2.0 * torch.log(words[:, 0::2] * 2.0**-32 + 2.0**-33))
        angle = words[:, 1::2] * (2.0 * math.pi * 2.0**-32)
        draws = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=2)
    else:
        draws = torch.floor(words / 256) * 2.0**-24
    out = torch.empty_like(p, dtype=torch.float64, memory_format=torch.preserve_format)
    return out.as_strided((p.numel(),), (1,)).copy_(draws.flatten()[: p.numel()]).as_strided(p.shape, out.stride())


def _random(p, seed, step, tensor):
    return lambda kind, site: _draw(kind, p, seed, step, tensor, site)'''
