"""Which network, size and precision: accuracy against time of several, made, scored and timed in one go."""
