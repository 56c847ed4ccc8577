"""What the training loop uses: devices, pace, stopping, validation, the log, diagnostics."""
