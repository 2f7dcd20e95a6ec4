"""Proposes rules to a search: it changes the best rules so far, one piece at a time.

    nos-search run --strategy external --command "python examples/external_proposer.py" --out runs/external

It needs Python alone. docs/howto/external_proposals.md describes the lines that it reads and writes; to let a language
model propose instead, replace `changed`.
"""

from __future__ import annotations

import ast
import json
import random
import sys

FIRST = ["g", "m_hat", "sign(m)", "g * exp(sign(g) * sign(m))", "m_hat / (sqrt(v_hat) + 1e-08)"]
OPERANDS = ["g", "m", "v", "m_hat", "v_hat", "rmsprop", "1", "0.1", "0.01 * w", "ld"]
FUNCTIONS = ["sign({})", "sqrt(abs({}))", "tanh({})", "exp({})", "-{}", "clip({}, 0.01)"]
PAIRS = ["({}) + ({})", "({}) - ({})", "({}) * ({})", "({}) / (abs({}) + 1e-08)", "where(({}) * g > 0, {}, 0)"]
KEPT = 20  # of the best rules
LONGEST = 160  # characters


class Change(ast.NodeTransformer):
    """Changes the expression number `place` of a rule, counted from the outermost, which is 0."""

    def __init__(self, place: int, chance: random.Random) -> None:
        self.place, self.chance = place, chance

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr):
            self.place -= 1
            if self.place == -1:
                return ast.parse(self.other(ast.unparse(node)), mode="eval").body
        if isinstance(node, ast.Call):  # the name of the function stays
            node.args = [self.visit(argument) for argument in node.args]
            return node
        return self.generic_visit(node)

    def other(self, text: str) -> str:
        draw = self.chance.random()
        if draw < 0.4:
            return self.chance.choice(OPERANDS)
        if draw < 0.6:
            return self.chance.choice(FUNCTIONS).format(text)
        parts = [text, self.chance.choice(OPERANDS)]
        return self.chance.choice(PAIRS).format(*parts)


def changed(rule: str, chance: random.Random) -> str:
    """Returns a rule that differs from this one in one place."""
    tree = ast.parse(rule, mode="eval")
    count = sum(isinstance(node, ast.expr) for node in ast.walk(tree))
    return ast.unparse(Change(chance.randrange(count), chance).visit(tree))


def main() -> None:
    chance, best = random.Random(), dict.fromkeys(FIRST, 0.0)  # rule -> reward
    waiting = list(FIRST)
    for line in sys.stdin:
        message = json.loads(line)
        if "hello" in message:
            chance.seed(f"{message['hello']['seed']} {message['hello']['next']}")
        elif "ask" in message:
            for _ in range(message["ask"]):
                rule = waiting.pop(0) if waiting else changed(chance.choice(list(best)), chance)
                print(json.dumps(rule if len(rule) <= LONGEST else chance.choice(FIRST)), flush=True)
        elif "told" in message and message["told"]["verdict"] == "passed" and "\n" not in message["told"]["rule"]:
            best[message["told"]["rule"]] = message["told"]["reward"] or 0.0
            best = dict(sorted(best.items(), key=lambda item: -item[1])[:KEPT])


if __name__ == "__main__":
    main()
