from . import cpu as cpu

__version__: str
