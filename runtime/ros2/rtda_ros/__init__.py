"""ROS 2 package: one node around rtda-deploy's runtime."""
