// Methods and instances for tests of the executor.
#pragma once

#include <cstring>
#include <vector>

#include "support/worker_under_test.h"

namespace msserving::testing_support {

inline OwnedTensor Row(float a, float b) { return Floats({2}, {a, b}); }

inline std::vector<OwnedTensor> Pair(float first) { return {Row(first, 1), Row(10, 20)}; }

inline void AddModelWorker(WorkerUnderTest* worker, SessionOptions extra = {}) {
  SessionOptions options = AddOptions();
  options.insert(options.end(), extra.begin(), extra.end());
  ModelOptions with_batch;
  with_batch.with_batch_dim = true;
  worker->executor.AddModel(MakeModel(options, with_batch));
}

// Python stage 0 of these tests: adds 1 to every float and fails rows that start with 99.
inline void PlusOne(const PythonStageCall& call) {
  for (uint32_t i = 0; i < call.instances; ++i) {
    const TensorView& input = call.input[i * call.inputs];
    float values[2];
    std::memcpy(values, input.data, sizeof(values));
    if (values[0] == 99) {
      call.sink->Fail(i, "ValueError: ninety-nine");
      continue;
    }
    values[0] += 1;
    values[1] += 1;
    TensorView output = input;
    output.data = reinterpret_cast<const uint8_t*>(values);
    call.sink->Put(i, 0, output);
  }
}

inline MethodGraph MixedGraph() {
  return Method(
      "mixed", {"x1", "x2"}, {"y", "x1"},
      {PythonStage(0, {{0, 0}}, "Preprocess"), ModelStage({{1, 0}, {0, 1}}), PythonStage(0, {{2, 0}}, "Postprocess")},
      {{3, 0}, {0, 0}});
}

}  // namespace msserving::testing_support
