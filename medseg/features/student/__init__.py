"""Students: small networks that learn from a teacher's labels.

The loop, the loss and the files are shared; `vessels` and `liver` say what is learnt.
"""
