"""Servers that one would look for on the page, and why they are not measured."""

ABSENT = {
    "TensorFlow Serving": (
        "its server is given out as a container image and as a Debian package of its own package source. PyPI has its "
        "client alone (`tensorflow-serving-api`), Debian has nothing of it."
    ),
    "NVIDIA Triton with its own back-ends (ONNX Runtime, TensorFlow, PyTorch)": (
        "given out as container images. The wheel of nvidia-pytriton carries the server with the Python back-end "
        "alone, which is measured."
    ),
}
