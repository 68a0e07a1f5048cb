"""The student: a small network that learns vessels from a teacher's labels and from vessels painted into scans."""
