"""How good it is: poses, masks and finding against the truth. Knows no ROS."""
