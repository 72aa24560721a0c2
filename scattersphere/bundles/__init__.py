"""The parent package of all loaded bundle versions; nothing else lives here.

A version of the bundle `etl` is importable as `scattersphere.bundles.etl_g7`; the finder that answers for such
names is installed by `scattersphere.registry` when the first version is loaded.
"""
