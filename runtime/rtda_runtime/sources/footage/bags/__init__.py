"""Bags of ROS 1 and ROS 2 and MCAP files: their files and storages, the messages that hold pictures, the recording."""
