from . import combine as combine
from . import cpu as cpu
from . import drawing as drawing
from . import plan as plan
from . import score as score
from . import sequential as sequential
from . import sim as sim
from . import sweep as sweep

__version__: str
