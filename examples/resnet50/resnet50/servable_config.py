"""Image bytes in, the five likeliest classes out. The weights are random (see export_model.py)."""

import io

import numpy as np
from PIL import Image

from mindspore_serving.server import register

register.declare_servable(servable_file="resnet50.mindir", model_format="MindIR", with_batch_dim=True)

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
SPREAD = np.array([0.229, 0.224, 0.225], np.float32)


def decode_image(image):
    """From the bytes of an image file to normalised float32 [3, 224, 224]."""
    picture = Image.open(io.BytesIO(image.tobytes())).convert("RGB").resize((224, 224))
    pixels = (np.asarray(picture, np.float32) / 255 - MEAN) / SPREAD
    return pixels.transpose(2, 0, 1)


def top5(scores):
    best = np.argsort(scores)[::-1][:5]
    return best.astype(np.int32), scores[best]


@register.register_method(output_names=["classes", "scores"])
def classify_top5(image):
    pixels = register.call_preprocess(decode_image, image)
    raw = register.call_servable(pixels)
    classes, scores = register.call_postprocess(top5, raw)
    return classes, scores
