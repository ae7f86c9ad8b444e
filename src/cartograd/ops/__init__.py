"""The vocabulary: one record for each operation, a file for each family.

Importing this package registers them all; `op.REGISTRY` maps names to records.
"""

from . import contract as contract
from . import control as control
from . import conv as conv
from . import determinant as determinant
from . import elementwise as elementwise
from . import guards as guards
from . import index as index
from . import linalg as linalg
from . import movement as movement
from . import op as op
from . import qr as qr
from . import random as random
from . import reduce as reduce
from . import sort as sort
from . import spectral as spectral
from . import window as window
