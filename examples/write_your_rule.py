"""An update rule of your own as a torch optimizer, in five lines."""

import torch

from nos_ext.optim import RuleOptimizer

model = torch.nn.Linear(10, 1)

optimizer = RuleOptimizer(model.parameters(), """
def soft_sign(p, g, m, *, lr, beta=0.9, width=0.01):
    m = beta * m + (1 - beta) * g
    return p - lr * tanh(m / width), m
""", lr=0.01)  # fmt: skip

x = torch.randn(256, 10, generator=torch.Generator().manual_seed(0))
for _ in range(200):
    optimizer.zero_grad()
    loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.5f}")
print(optimizer.program.disassemble())
