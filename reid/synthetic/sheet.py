"""An overview of a rendered benchmark: rows of people, columns of views."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from reid.data.layout import PROTOCOL_FOLDERS
from reid.errors import UserError
from reid.files import replacing
from reid.synthetic.camera import CAPTURE_POINTS

CELL = (96, 168)
"""Width and height of a cell, pixels."""
HEADER = 34
ROWS = 12


def contact_sheet(root: Path, png: Path) -> None:
    """Draw people of the benchmark at `root` from the ground and from every capture point.

    Crops are enlarged to equal height or width, however small. Raises UserError when `root`
    holds no rendered benchmark.
    """
    people = sorted((root / "train").glob("*"))[: ROWS // 2]
    tests = [folder.name for folder in sorted((root / PROTOCOL_FOLDERS["A2G"] / "query").glob("*"))]
    sides = [root / PROTOCOL_FOLDERS["A2G"] / side for side in ("gallery", "query")]
    rows = [sorted(person.iterdir()) for person in people]
    rows += [
        sorted(track for side in sides for track in (side / pid).iterdir())
        for pid in tests[: ROWS - len(rows)]
    ]
    if not rows:
        raise UserError(f"{root} holds no benchmark: run `reid demo-data` first")
    names = ["session 1", "", "session 2", ""]
    names += [f"{p.height:g} m up\n{p.distance:g} m away" for p in CAPTURE_POINTS]
    sheet = Image.new("RGB", (len(names) * CELL[0], HEADER + len(rows) * CELL[1]), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for column, name in enumerate(names):
        pen.multiline_text((column * CELL[0] + 4, 2), name, fill="black", font=font)
    for row, tracks in enumerate(rows):
        for column, picture in enumerate(_pictures(tracks)):
            if picture is not None:
                _paste(sheet, picture, column * CELL[0], HEADER + row * CELL[1])
    with replacing(png) as temporary:
        sheet.save(temporary, "PNG")


def _pictures(tracks: list[Path]) -> list[Path | None]:
    """A row: two frames of the first and of the last ground tracklet, then the aerial ones."""
    crops = [sorted(track.glob("*.jpg")) for track in tracks]
    ground = [names for names in crops if len(names[0].name.split("_")) == 7]
    cells: list[Path | None] = []
    for names in (ground[0], ground[-1]):
        cells += [names[0], names[len(names) // 2]]
    aerial = {"_".join(names[0].name.split("_")[6:9]): names[0] for names in crops}
    return cells + [aerial.get(f"{p.height:g}_{p.distance:g}_{p.angle}") for p in CAPTURE_POINTS]


def _paste(sheet: Image.Image, picture: Path, x: int, y: int) -> None:
    with Image.open(picture) as crop:
        room = (CELL[0] - 4, CELL[1] - 18)
        scale = min(room[0] / crop.width, room[1] / crop.height)
        size = (max(1, round(crop.width * scale)), max(1, round(crop.height * scale)))
        sheet.paste(crop.resize(size, Image.Resampling.LANCZOS), (x + 2, y + 2))
        label = f"{crop.width} x {crop.height} px"
    font = ImageFont.load_default(11)
    ImageDraw.Draw(sheet).text((x + 4, y + CELL[1] - 15), label, fill="black", font=font)
