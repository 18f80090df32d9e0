"""The only folder that imports rclpy or messages."""
