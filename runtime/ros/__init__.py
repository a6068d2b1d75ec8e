"""A ROS 2 node without ROS: what it takes and gives as plain values, so that it is tested where no ROS is."""
