"""An overview of a rendered benchmark: rows of people, columns of tracklets."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from reid.data.detreidx import PROTOCOL_FOLDERS
from reid.errors import UserError
from reid.files import replacing

CELL = (96, 168)
"""Width and height of a cell, pixels."""
ROWS = 12


def contact_sheet(root: Path, png: Path) -> None:
    """Draw the first crop of every tracklet of some people of training, then of the test.

    Crops are enlarged to equal height or width, however small. Raises UserError when `root`
    holds no rendered benchmark.
    """
    train = sorted((root / "train").glob("*"))[: ROWS // 2]
    test = sorted((root / PROTOCOL_FOLDERS["A2G"]).glob("query/*"))[: ROWS - len(train)]
    people = [sorted(person.iterdir()) for person in train]
    people += [sorted(person.parents[1].glob(f"*/{person.name}/*")) for person in test]
    if not people:
        raise UserError(f"{root} holds no benchmark: run `reid demo-data` first")
    columns = max(map(len, people))
    sheet = Image.new("RGB", (columns * CELL[0], len(people) * CELL[1]), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row, tracklets in enumerate(people):
        for column, tracklet in enumerate(sorted(tracklets, key=lambda path: path.name)):
            first = min(tracklet.iterdir())
            x, y = column * CELL[0], row * CELL[1]
            with Image.open(first) as crop:
                scale = min((CELL[0] - 4) / crop.width, (CELL[1] - 32) / crop.height)
                size = (max(1, round(crop.width * scale)), max(1, round(crop.height * scale)))
                sheet.paste(crop.resize(size, Image.Resampling.LANCZOS), (x, y))
                label = f"{crop.width} x {crop.height} px\n{_view(first.name)}"
            pen.multiline_text((x, y + CELL[1] - 30), label, fill="black", font=font)
    with replacing(png) as temporary:
        sheet.save(temporary, "PNG")


def _view(name: str) -> str:
    fields = name.split("_")
    return "ground" if len(fields) == 7 else f"{fields[6]} m up, {fields[7]} m"
