"""What a robot does about a world that changes: an alarm is raised, frames are collected. NumPy alone."""
