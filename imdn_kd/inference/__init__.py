"""Running models: model files, adaptive cropping, images in and out."""
