"""The main jobs: training on digits, a table, a folder of images or text, and predicting.

The command line is a thin front of these functions. Each job prepares data and a model, described
by plain JSON, trains with `cg.train.Trainer`, and leaves a run folder from which `predict` works.
"""

from .digits import prepare_digits as prepare_digits
from .images import prepare_images as prepare_images
from .job import Job as Job
from .job import Options as Options
from .job import Outcome as Outcome
from .job import run_job as run_job
from .models import build_model as build_model
from .predict import predict as predict
from .table import prepare_table as prepare_table
from .text import prepare_text as prepare_text

__all__ = [
    "Job",
    "Options",
    "Outcome",
    "build_model",
    "predict",
    "prepare_digits",
    "prepare_images",
    "prepare_table",
    "prepare_text",
    "run_job",
]
