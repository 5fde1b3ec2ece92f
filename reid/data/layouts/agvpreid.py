"""AG-VPReID: the folders of DetReIDX, other file names.

train/PERSON/TRACKLET/*.jpg, case1_aerial_to_ground/{query,gallery}/..., case2_ground_to_aerial/...
A file name holds its camera as `CnE`: 0 and 1 fixed, 2 and 3 worn, 4 and 5 drones.
"""

import re

from reid.data.layout import GrammarError, Scene, demand_jpeg
from reid.data.names import Run

CAMERAS = ("cctv0", "cctv1", "wearable2", "wearable3", "uav4", "uav5")
_CAMERA = re.compile(r"C(\d+)E", re.ASCII)


def scene(tracklet: str, run: Run, identity: int) -> Scene:
    """View and camera, from the file names. Raises GrammarError."""
    del tracklet, identity
    demand_jpeg(run)
    found = {int(number) for number in _CAMERA.findall(run.head)}
    if len(found) != 1 or max(found) >= len(CAMERAS):
        raise GrammarError("unknown file name: expected one camera between C and E, 0 to 5")
    camera = found.pop()
    return Scene("aerial" if camera >= 4 else "ground", camera)
