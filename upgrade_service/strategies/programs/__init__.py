"""Programs that steps run, each a file of its own for `python -I`.

They run in other interpreters than the engine's, so they import the standard library only;
`options.py` also takes oslo.config from the environment that it looks at.
"""
