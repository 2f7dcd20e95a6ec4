"""Has the printers: one family of formatters over the expression tree.

formatter.py            the walk that all share, and the one decision about parentheses
  text.py               expressions as rule text (expr.py shows them in its repr, so this file stands below it)
    function_text.py    a rule as the source of a function that compiles to it
    pytorch.py          a rule as a stand-alone torch.optim.Optimizer
  mathematics.py        what the notation of mathematics has in common: strengths, numbers, names, equations
    latex.py            a rule as LaTeX
    mathml.py           a rule, or rule text, as MathML
layout.py               which values get a line of their own where a rule is written as statements
"""
