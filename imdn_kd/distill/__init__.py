"""Knowledge distillation: teachers, feature hooks and loss terms, independent of the training loop."""
