"""The whole network: tracklets of frames in, features for losses and for retrieval out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reid.config import Model
from reid.errors import UserError
from reid.model.heads import Head
from reid.model.pooling import TemporalPool, frame_quality
from reid.model.prompts import ConditionalPrompts
from reid.model.released import load_reference_checkpoint
from reid.model.vit import FrameFeatures, Geometry, VisualTower, resize_positions
from reid.model.weights import Weights

__all__ = ["Features", "VideoReID", "build", "load_reference_checkpoint"]


@dataclass(frozen=True)
class Features:
    """Tracklet features (MODEL 4.3)."""

    last: Tensor
    """G (B, d): pooled residual stream before the last block; training only."""
    pooled: Tensor
    """F (B, d): pooled output of the tower."""
    proj: Tensor
    """Z (B, e): pooled features in the joint space of image and text."""


class VideoReID(nn.Module):
    """CLIP's visual tower with conditioning, adapters, temporal pooling and identity heads."""

    def __init__(
        self,
        options: Model,
        geometry: Geometry,
        num_classes: int,
        num_cameras: int,
        image_size: tuple[int, int],
    ) -> None:
        super().__init__()
        if options.prompts.length and options.prompts.depth > geometry.depth:
            raise UserError(
                f"prompts.depth is {options.prompts.depth} but the backbone has only "
                f"{geometry.depth} blocks: lower it"
            )
        height, width = image_size
        self.geometry = geometry
        self.num_cameras = num_cameras
        self.visual = VisualTower(
            geometry,
            height=height,
            width=width,
            stride=options.stride or geometry.patch,
            spatial=options.adapters.width * options.adapters.spatial,
            temporal=options.adapters.width * options.adapters.temporal,
        )
        self.prompts = (
            ConditionalPrompts(options.prompts, cameras=num_cameras, width=geometry.width)
            if options.prompts.length
            else None
        )
        # F and G share one pool, as the released code does; Z has its own.
        self.pool = TemporalPool(geometry.width, options.pooling)
        self.pool_proj = TemporalPool(geometry.embed, options.pooling)
        self.head = Head(geometry.width, num_classes, options.neck)
        self.head_proj = Head(geometry.embed, num_classes, options.neck)

    def forward(
        self, clips: Tensor, cameras: Tensor, metadata: Tensor, heights: Tensor | None = None
    ) -> Features:
        """Clips (B, T, 3, H, W), cameras (B,), metadata (B, 3) -> features of the tracklets.

        metadata: altitude m, distance m, angle degrees; NaN is unknown. heights (B, T): pixel
        heights of the original crops, needed only when `pooling.quality` is on.
        """
        frames, quality = self._encode(clips, cameras, metadata, heights)
        return Features(
            last=self.pool(frames.last, quality),
            pooled=self.pool(frames.final, quality),
            proj=self.pool_proj(frames.projected, quality),
        )

    def classify(self, features: Features) -> tuple[Tensor, Tensor]:
        """Identity logits of both heads, (B, C) each; for the training losses."""
        return self.head(features.pooled), self.head_proj(features.proj)

    def embed(
        self, clips: Tensor, cameras: Tensor, metadata: Tensor, heights: Tensor | None = None
    ) -> Tensor:
        """What retrieval uses: F and Z side by side, (B, d + e), before BN and not normalized."""
        return self.embed_with_weights(clips, cameras, metadata, heights)[0]

    def embed_with_weights(
        self, clips: Tensor, cameras: Tensor, metadata: Tensor, heights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `embed`, and the frame weights alpha_t that pooled F and Z, (B, 2, T)."""
        frames, quality = self._encode(clips, cameras, metadata, heights)
        pools = (self.pool, frames.final), (self.pool_proj, frames.projected)
        features = torch.cat([pool(rows, quality) for pool, rows in pools], dim=1)
        return features, torch.stack([pool.weights(rows, quality) for pool, rows in pools], dim=1)

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Parameters that tracklet features depend on: all but those of the heads."""
        heads = {id(p) for head in (self.head, self.head_proj) for p in head.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in heads]

    def plain_clip(self, clips: Tensor) -> Tensor:
        """Z of plain CLIP: adapters and prompts off, mean over frames. (B, e), for stage 1."""
        count, frames = clips.shape[:2]
        encoded = self.visual(clips.flatten(0, 1), frames=frames, adapt=False)
        mean: Tensor = encoded.projected.view(count, frames, -1).mean(dim=1)
        return mean

    def _encode(
        self, clips: Tensor, cameras: Tensor, metadata: Tensor, heights: Tensor | None
    ) -> tuple[FrameFeatures, Tensor | None]:
        """Features of the frames, (B, T, .) each, and their quality (B, T) if it is known."""
        prompts = () if self.prompts is None else self.prompts(cameras, metadata)
        frames = self.visual(clips.flatten(0, 1), frames=clips.shape[1], prompts=prompts)
        split = (*clips.shape[:2], -1)
        by_tracklet = FrameFeatures(
            frames.last.view(split), frames.final.view(split), frames.projected.view(split)
        )
        return by_tracklet, None if heights is None else frame_quality(heights)


def build(
    model_config: Model,
    *,
    num_classes: int,
    num_cameras: int,
    weights: Weights | Geometry,
    image_size: tuple[int, int] = (256, 128),
) -> VideoReID:
    """Build the network around pre-trained CLIP weights.

    `weights` gives tensors and geometry; a bare `Geometry` leaves the tower at random, for tests
    and for loading a trained checkpoint right after. New parts start from torch's generator.
    """
    geometry = weights if isinstance(weights, Geometry) else weights.geometry
    model = VideoReID(model_config, geometry, num_classes, num_cameras, image_size)
    if isinstance(weights, Weights):
        tower = {
            name.removeprefix("visual."): tensor
            for name, tensor in weights.tensors.items()
            if name.startswith("visual.")
        }
        tower["positional_embedding"] = resize_positions(
            tower["positional_embedding"],
            model.visual.rows,
            model.visual.columns,
            model_config.positions,
        )
        new, unknown = model.visual.load_state_dict(tower, strict=False)
        assert not unknown, unknown
        assert all(".spatial." in name or ".temporal." in name for name in new), new
    return model
