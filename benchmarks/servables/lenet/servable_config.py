"""The LeNet of the digits example with random weights, exported for batches of 32."""

from mindspore_serving.server import register

register.declare_servable(servable_file="lenet.mindir", model_format="MindIR", with_batch_dim=True)


@register.register_method(output_names=["y"])
def predict(x):
    y = register.call_servable(x)
    return y
