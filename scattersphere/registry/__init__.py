"""The registry of task code: bundles, their versions, and the task classes in them.

`snapshots` reads a bundle once into a private copy, `modules` makes a namespace of modules of it, `load` finds
the task classes, `catalog` knows which versions are needed, and `versions` makes, pins and frees them.
"""
