"""Data: datasets, samplers and the loader; digits, tables, folders of images, and text as bytes.

>>> import cartograd as cg
>>> digits = cg.data.load_digits()
>>> loader = cg.data.DataLoader(digits.train, batch_size=64, shuffle=True, seed=0)
>>> images, labels = next(iter(loader))
>>> images.shape, labels.shape
((64, 1, 8, 8), (64,))
"""

from __future__ import annotations

from .augment import Augmented, ShiftFlip
from .collate import default_collate, default_convert
from .datasets import (
    ArrayDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)
from .digits import Digits, load_digits
from .image_files import ImagePreprocessing
from .images import ImageData, ImageDataset, ImageFiles, load_images, scan_images
from .loader import DataLoader
from .samplers import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from .split import random_split, stratified_split
from .table import TableData, load_table, prepare_table
from .table_file import Table, read_table, table_from_records
from .table_schema import TableSchema, Target
from .text import ByteWindows, TextData, load_text, standard_library_sources
from .workers import WorkerInfo, get_worker_info

__all__ = [
    "ArrayDataset",
    "Augmented",
    "BatchSampler",
    "ByteWindows",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "Digits",
    "ImageData",
    "ImageDataset",
    "ImageFiles",
    "ImagePreprocessing",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "ShiftFlip",
    "Subset",
    "SubsetRandomSampler",
    "Table",
    "TableData",
    "TableSchema",
    "Target",
    "TensorDataset",
    "TextData",
    "WeightedRandomSampler",
    "WorkerInfo",
    "default_collate",
    "default_convert",
    "get_worker_info",
    "load_digits",
    "load_images",
    "load_table",
    "load_text",
    "prepare_table",
    "random_split",
    "read_table",
    "scan_images",
    "standard_library_sources",
    "stratified_split",
    "table_from_records",
]
