"""The parts of docs/benchmarks.md that are the same for every run: how to read it, and how each figure was got."""

READING = """## How to read this

- **Two rows are ours.** "MindSpore Serving" runs MindIR models through MindSpore, as its users do. "MindSpore Serving,
  others' functions" runs the very functions that the other servers run (NumPy, onnxruntime) as Python stages. Compare
  the second with the others to compare servers; compare the two with each other to see what the choice of kernels
  does. The old package has its own kernels, MindSpore Lite's.
- `64x1` is 64 connections with one request in flight on each, `8x16` is 8 with 16 each (gRPC alone can do that). The
  first shows what waking up costs, the second what the code costs.
- **of its ceiling** is the rate as a share of what the machine allows: `echo` is a server that sends the request back
  and does nothing else, `model` is the computation alone in a loop. The lower of the two counts. An echo that says
  "the load generator was full" is only the lower end of what the machine allows; a share of it may pass 100 %.
- **CPU a request** is the figure that tells most: rates end where a core ends, and a faster core moves all of them.
- **open N/s** is sent by the clock. A request's time counts from when it was due, so that a stall is seen by all that
  were due in it (no coordinated omission). Who did not keep up has latencies that grow with the length of the run."""

METHOD = """## How each figure was got

- **Same work.** A work is a set of inputs and functions (`benchmarks/rivals/shared/rival_work`). onnxruntime has one
  thread, and so have all libraries, as the server has one core. Models and ONNX files have the same weights.
- **Checked answers.** Before any load an answer is decoded and compared with what MindSpore's executor and NumPy
  computed. Under load each answer must have that one's length, and up to 16 of each run are decoded and compared.
- **One generator** (`benchmarks/load/load_generator.cc`) sends gRPC and HTTP/1.1 to all, from the other core. Rows in
  which it was full itself (above 90 % of its core) are marked: the server could have done more. Where one request is in
  flight (`1x1`) it looks for the answer without sleeping, as waking a sleeping client takes longer than a quick answer.
- **CPU a request.** User and system time of all processes that the server started, read at the beginning and the end
  of the measured time and divided by the right answers in it.
- **Memory.** Proportional set size of these processes after the run. Ours holds MindSpore.
- **Ceilings.** Echoes are sent what ours is sent, with the same number in flight: nghttp2 for gRPC, our HTTP/1.1
  front-end for HTTP (large tensors go there as raw bytes). The computation alone runs back to back in one thread, in
  full batches: MindSpore's session for ours (all models of the case one after the other, Python stages not counted),
  the functions for the others, nothing for the old package.
- **Fairness.** Each server has the settings that its own guide recommends for production, with dynamic batching where
  it has some, and its fastest protocol; all are listed above, as they were in the run. All are pinned to one core, so
  each has one worker; how they use several cores is not shown here. Before each load a server is left to come to rest.
- **Runs in parts.** A case is always measured whole, all servers within minutes of each other. Where cases are of
  different runs, each says which one. A rate of a second or less of load moves by some percent from run to run.
- `benchmarks/README.md` tells how to repeat it and how to add a server."""
