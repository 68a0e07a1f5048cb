"""The student of the liver in ultrasound: small 2-D networks on frozen features and on echoes in sector coordinates."""
