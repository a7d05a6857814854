"""Models in 8 bits: calibrated after training, and what their files hold."""
