from . import cpu as cpu
from . import score as score

__version__: str
