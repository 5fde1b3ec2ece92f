"""From folders of person crops to batches of clips: layout, index, dataset, sampler, augmentation."""
