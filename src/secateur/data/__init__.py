"""Cases with their labels: folders of frames, the synthetic default, preprocessing and augmentation."""
