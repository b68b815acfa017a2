"""Training of detectors: annotated fields, augmentation, the loop. Nothing here is needed to run one."""
