"""From options to everything a training run is made of."""
