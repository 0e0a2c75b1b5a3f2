__version__: str

from . import batch as batch
from . import captioner as captioner
from . import checkpoint as checkpoint
from . import data as data
from . import decode as decode
from . import embedding as embedding
from . import evaluation as evaluation
from . import hub as hub
from . import metrics as metrics
from . import model as model
from . import planning as planning
from . import quantized as quantized
from . import regions as regions
from . import report as report
from . import run as run
from . import runtime as runtime
from . import sample_data as sample_data
from . import serving as serving
from . import sharding as sharding
from . import testing as testing
from . import tokenizer as tokenizer
from . import train as train
from . import trainable as trainable
from .captioner import Captioner as Captioner
from .captioner import load as load
