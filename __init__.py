"""spatialc: compile PyTorch transformers into static schedules for spatial arrays."""
