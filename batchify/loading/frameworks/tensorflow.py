"""Make a tf.data.Dataset from a split.

https://www.tensorflow.org/api_docs/python/tf/data/Dataset#from_generator
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from batchify.loading.batches import Batches, BatchOptions
from batchify.loading.split_data import SplitData


def make_dataset(split: SplitData, options: BatchOptions) -> Any:
    """Return a ``tf.data.Dataset`` of (X, y); each iteration over it is an epoch.

    Its signature and its number of elements are known. The batches read ahead themselves, by
    ``prefetch``.
    """
    batches = Batches(split, options)
    size = options.batch_size if options.drop_last else None
    specs = [tf.TensorSpec((size, *split.images.shape[1:]), tf.as_dtype(batches.dtype))]
    if split.labels is not None:
        shape = (size, *split.labels.shape[1:])
        specs.append(tf.TensorSpec(shape, tf.as_dtype(batches.labels_dtype)))
    if options.with_rows:
        specs.append(tf.TensorSpec((size,), tf.int64))
    signature = tuple(specs) if len(specs) > 1 else specs[0]
    found = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)
    return found.apply(tf.data.experimental.assert_cardinality(len(batches)))
