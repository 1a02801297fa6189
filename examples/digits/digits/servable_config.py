"""Bytes of image files in, digits out: Pillow decodes, the LeNet runs in batches of 32, NumPy ranks the scores.

Two methods share the model. `classify` decodes one image after the other; `top5` decodes those of a batch side by side
in a thread pool.
"""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from mindspore_serving.server import register

register.declare_servable(servable_file="digits.mindir", model_format="MindIR", with_batch_dim=True)


# Made once, when the worker reads this file. Pillow decodes without the GIL, so the threads run side by side.
decoders = ThreadPoolExecutor(max_workers=4)


def to_pixels(data):
    """From the bytes of an image file to float32 [1, 8, 8]."""
    picture = Image.open(io.BytesIO(data)).convert("L").resize((8, 8))
    return np.asarray(picture, np.float32)[None] / 255


def decode_image(image):
    """One instance: bytes arrive as a one-dimensional uint8 array."""
    return to_pixels(image.tobytes())


def decode_images(instances):
    """Many instances, each a tuple of its values: yields their results in the same order.

    A bad image raises from result(): its instance fails, and the function is called again with those after it.
    """
    decoding = [decoders.submit(to_pixels, image.tobytes()) for (image,) in instances]
    for pixels in decoding:
        yield pixels.result()


def arg_max(scores):
    return np.argmax(scores)


def rank_five(scores):
    """Two outputs: the five likeliest digits, and how likely each is."""
    weights = np.exp(scores - scores.max())
    best = np.argsort(-scores)[:5]
    return best, weights[best] / weights.sum()


@register.register_method(output_names=["digit"])
def classify(image):
    pixels = register.call_preprocess(decode_image, image)
    scores = register.call_servable(pixels)
    digit = register.call_postprocess(arg_max, scores)
    return digit


@register.register_method(output_names=["digits", "probabilities"])
def top5(image):
    pixels = register.call_preprocess_pipeline(decode_images, image)
    scores = register.call_servable(pixels)
    digits, probabilities = register.call_postprocess(rank_five, scores)
    return digits, probabilities
