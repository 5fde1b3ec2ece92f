"""The video re-identification network: CLIP towers, prompts, adapters, pooling, necks."""
