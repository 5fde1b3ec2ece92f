"""Renew the golden values on purpose: `python -m tests.golden`, or `make golden`."""

import json
import re
import tempfile
from pathlib import Path

from tests.golden.experiment import PATH, measure

with tempfile.TemporaryDirectory() as home:
    text = json.dumps(measure(Path(home)), indent=1)
# A step of training and a list of entries each stand on one line.
text = re.sub(r"[\[{][^\[\]{}]{,240}[\]}]", lambda flat: re.sub(r"\n *", " ", flat[0]), text)
PATH.write_text(text + "\n")
print(f"wrote {PATH}: commit it with the reason why these numbers change")
