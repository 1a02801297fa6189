"""The handwritten digits that scikit-learn ships: 1797 grey images of 8x8 pixels, split once and for all."""

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def load_split():
    """(training images, held-out images, training labels, held-out labels); images are uint8 [n, 8, 8]."""
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return train_test_split(
        images, digits.target.astype(np.int32), test_size=0.2, random_state=1, stratify=digits.target
    )


def to_png(image):
    """The bytes of a PNG file holding one uint8 image."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
