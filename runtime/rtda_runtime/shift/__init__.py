"""What a robot does about a world that changes: frames are collected."""
