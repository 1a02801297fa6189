"""ResNet-50 with random weights over images of 64x64, exported for batches of 4."""

from mindspore_serving.server import register

register.declare_servable(servable_file="resnet50.mindir", model_format="MindIR", with_batch_dim=True)


@register.register_method(output_names=["y"])
def predict(x):
    y = register.call_servable(x)
    return y
