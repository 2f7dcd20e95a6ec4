"""What the CPU back-end of this process answers: the digests of groups, or the bits of one call.

python -m tests.backend.conformance --groups GROUP ...
python -m tests.backend.conformance --bits GROUP NUMBER FILE
"""

from __future__ import annotations

import itertools
import json
import sys

import numpy as np

from .backends import Engine, answers, outcome
from .cases import GROUPS

if sys.argv[1] == "--groups":
    print(json.dumps(answers(Engine("the CPU"), sys.argv[2:])))
else:
    group, number, file = sys.argv[2:]
    call = next(itertools.islice(GROUPS[group](), int(number), None))
    np.savez(file, *(outcome(Engine("the CPU"), call, int(number)) or []))
