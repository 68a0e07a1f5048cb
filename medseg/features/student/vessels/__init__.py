"""The student of vessels: a 3-D U-Net that learns from the flux rule and from vessels painted into scans."""
