"""A perceptron of 784, 512 and 10 units, exported for batches of 32."""

from mindspore_serving.server import register

register.declare_servable(servable_file="mlp.mindir", model_format="MindIR", with_batch_dim=True)


@register.register_method(output_names=["y"])
def predict(x):
    y = register.call_servable(x)
    return y
