"""y = x1 + x2 over 2x2 float32, without batch dimension: one run of the model an instance."""

from mindspore_serving.server import register

register.declare_servable(servable_file="add.mindir", model_format="MindIR", with_batch_dim=False)


@register.register_method(output_names=["y"])
def predict(x1, x2):
    y = register.call_servable(x1, x2)
    return y
