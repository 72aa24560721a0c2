"""The registry of task code: bundles, their versions, and the task classes in them.

`sources` and `archives` read a bundle once into a private snapshot, `imports` makes a world of modules
of it, `discovery` finds the task classes, `catalog` knows which versions are needed, `release` lets go
of the others, `keeping` knows which files stay, and `versions` makes one of all that.
"""
