"""PNG bytes in, the digit out: a PIL preprocess, the LeNet in batches of 32, an arg-max postprocess."""

import io

import numpy as np
from PIL import Image

from mindspore_serving.server import register

register.declare_servable(servable_file="digits.mindir", model_format="MindIR", with_batch_dim=True)


def decode_image(image):
    """From the bytes of an image file, which arrive as a one-dimensional uint8 array, to float32 [1, 8, 8]."""
    picture = Image.open(io.BytesIO(image.tobytes())).convert("L").resize((8, 8))
    return np.asarray(picture, np.float32)[None] / 255


def arg_max(scores):
    return np.argmax(scores)


@register.register_method(output_names=["digit"])
def classify(image):
    pixels = register.call_preprocess(decode_image, image)
    scores = register.call_servable(pixels)
    digit = register.call_postprocess(arg_max, scores)
    return digit
