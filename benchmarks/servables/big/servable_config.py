"""2 MiB + 2 MiB in, their sum of 2 MiB out."""

from mindspore_serving.server import register

register.declare_servable(servable_file="big.mindir", model_format="MindIR", with_batch_dim=False)


@register.register_method(output_names=["y"])
def predict(x1, x2):
    y = register.call_servable(x1, x2)
    return y
