"""What every server does: the works, the functions that do them, and the inputs. Runs on Python 3.7 and newer, with
NumPy and onnxruntime alone, because it is imported in each rival's own environment."""
