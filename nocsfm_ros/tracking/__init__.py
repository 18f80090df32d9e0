"""What remembers: the object memory, the states, the tracker."""
