"""Features of any tracklets from a trained folder, and their ranking, for use as a library.

from reid import TrackletEncoder

encoder = TrackletEncoder("results/demo/train/scaled/seed1")
query = encoder.encode("my/queries")
ranking = encoder.rank(query, encoder.encode("my/gallery"))
print(query.folders[0], "is most like", ranking.index[0])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid import provenance
from reid.config import Clip, ReRanking, Training
from reid.data.dataset import TrackletDataset
from reid.data.detreidx import parse_name
from reid.data.frames import IGNORED, folders_with_frames
from reid.data.loading import naming_dead_processes
from reid.data.scan import Source, read_folder
from reid.data.tracklet import Scene, Tracklet
from reid.errors import UserError
from reid.features.extract import embed_all, restore
from reid.features.features import Floats
from reid.model.weights import load as load_weights
from reid.retrieval.retrieve import distances_of
from reid.train.common import pick_device


@dataclass(frozen=True)
class Encoded:
    """Features of tracklets: one row each, raw (not l2-normalized)."""

    folders: tuple[Path, ...]
    features: Floats  # (n, D)

    def __len__(self) -> int:
        return len(self.folders)


@dataclass(frozen=True)
class Ranking:
    """The first m gallery positions of each query, nearest first, ties by gallery order."""

    index: NDArray[np.int32]  # (Q, m)
    distance: Floats  # (Q, m)


class TrackletEncoder:
    """A trained network that turns folders of images into features."""

    def __init__(
        self,
        run: str | Path,
        *,
        weights: str | None = None,
        device: str = "auto",
        test_sampling: str = "first",
    ) -> None:
        """Load `run`, a folder `results/<dataset>/train/<training>/seed<N>`.

        weights: of the CLIP backbone; without it the file that the run was trained from.
        device: `auto`, `cpu` or `cuda`. test_sampling: as `clip.test_sampling`.
        Raises UserError when the folder is no finished run, or on other weights.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise UserError(f"device must be one of auto, cpu, cuda, got {device!r}")
        if test_sampling not in ("first", "center"):
            raise UserError(f"test_sampling must be one of first, center, got {test_sampling!r}")
        folder = Path(run)
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder of a run, results/DATASET/train/TRAINING/seedN")
        manifest = provenance.read(folder / "stage2.manifest.json")
        try:
            if manifest is None:
                raise KeyError("no stage2.manifest.json")
            options = manifest.stamp["options"]
            self._metadata = bool(options["metadata"])
            self._training = Training(
                clip=Clip(**options["clip"], test_sampling=test_sampling),
                **{name: options[name] for name in ("model", "finetune", "stage2")},
            )
            seed, tag = int(options["seed"]), options["backbone"].get("weights")
            backbone = str(weights or tag or manifest.made["inputs"]["weights"])
        except (KeyError, TypeError, ValueError) as error:
            reason = f"holds no finished run of this version ({str(error).splitlines()[0]})"
            raise UserError(f"{folder} {reason}") from None
        self._device = pick_device(device)
        clip = load_weights(backbone, activation=options["backbone"].get("activation"))
        network = restore(folder / "stage2.safetensors", self._training, clip, seed=seed)
        self._network = network.to(self._device).eval()

    @naming_dead_processes()
    def encode(
        self,
        images: str | Path | Sequence[str | Path],
        *,
        camera: int | None = None,
        flip_tta: bool = True,
        batch_size: int = 16,
        workers: int = 0,
    ) -> Encoded:
        """Features (n, D) of tracklets: a folder with images is one.

        images: a folder, below which every folder with .jpg files is taken, in order of path; or
        a list of tracklet folders, in its order.
        camera: for file names that are not those of DetReIDX, one of those of the training's
        dataset (DetReIDX: 0 ground, 1 or 2 aerial, by session); such tracklets have no altitude,
        distance and angle. Names of DetReIDX say it.
        flip_tta: average with the features of the mirrored clips (Sec. 3.2.5).
        Raises UserError naming the folder without images or the file name of no known form.
        """
        if isinstance(images, str | Path):
            folders = _folders_below(Path(images))
        else:
            folders = [Path(folder) for folder in images]
        cameras = self._network.num_cameras
        if camera is not None and (type(camera) is not int or camera not in range(cameras)):
            raise UserError(
                f"camera must be one of the training's, 0 to {cameras - 1}, got {camera}"
            )
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}")
        if not folders:
            raise UserError("no tracklet folders given: there is nothing to encode")
        tracklets = [_tracklet(folder, camera) for folder in folders]
        clip, metadata = self._training.clip, self._metadata
        dataset = TrackletDataset(tracklets, Path(), clip=clip, train=False, metadata=metadata)
        tensors = embed_all(
            self._network,
            dataset,
            self._device,
            flip=flip_tta,
            batch_size=batch_size,
            workers=workers,
        )
        features = tensors["features"].numpy()
        if flip_tta:
            features = (features + tensors["flipped"].numpy()) / np.float32(2)
        return Encoded(tuple(folders), features)

    def rank(
        self,
        query: Encoded,
        gallery: Encoded,
        *,
        rerank: ReRanking | None = None,
        top: int | None = None,
    ) -> Ranking:
        """The gallery ranked for each query by cosine distance, or re-ranked.

        Row q of `index` holds positions in `gallery.folders`, nearest first.
        Raises UserError on an empty side, features of different sizes or not finite.
        """
        if top is not None and not (isinstance(top, int | np.integer) and top >= 1):
            raise UserError(f"top must be at least 1 and whole, got {top}")
        distances = distances_of(query.features, gallery.features, rerank)
        order = np.array([np.argsort(row, kind="stable")[:top] for row in distances], np.int32)
        return Ranking(order, np.take_along_axis(distances, order, axis=1))


def _folders_below(root: Path) -> list[Path]:
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: expected one with tracklet folders")
    folders = list(folders_with_frames(root))
    if not folders:
        raise UserError(f"{root} holds no folder with .jpg images")
    return folders


def _tracklet(folder: Path, camera: int | None) -> Tracklet:
    """All images of a folder. Raises UserError without images, or on names that say no camera."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: expected the images of a tracklet")
    people = set()

    def scene_of(name: str) -> Scene:
        identity, scene = parse_name(name)
        people.add(identity)
        return scene

    scene = scene_of if camera is None else Scene(None, camera)
    source = Source(str(folder), folder.name, 0, "query", scene)
    tracklets, rejected, _ = read_folder(
        folder.parent, folder.name, [source], complete=False, check_sizes=False
    )
    problems = [f"{path}: {reason}" for path, reason in rejected if reason != IGNORED]
    if len(people) > 1:
        problems.append(f"{folder.name}: its names tell of different people")
    if problems:
        hint = "without names of DetReIDX, say what took the images with camera=0 (ground), 1 or 2"
        words = f"; {hint} (aerial)" if camera is None else ": move it away, or repair it"
        raise UserError(f"{folder.parent / problems[0]}{words}")
    return tracklets[0]
