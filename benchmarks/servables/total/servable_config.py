"""The sum of 1024x1024 numbers: a large request, a tiny reply."""

from mindspore_serving.server import register

register.declare_servable(servable_file="total.mindir", model_format="MindIR", with_batch_dim=False)


@register.register_method(output_names=["y"])
def predict(x):
    y = register.call_servable(x)
    return y
