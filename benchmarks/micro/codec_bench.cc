// What decoding a request and encoding a reply cost. addb: two float32 2x2 inputs, one output, as in the addb servable.
// Run:  codec_bench [--benchmark_filter=...]
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "protocol/predict_client_codec.h"
#include "protocol/predict_codec.h"

namespace msserving {
namespace {

const MethodSignature kAdd{"add_common", {"x1", "x2"}, {"y"}};

TensorView Square(const std::vector<float>& values, int64_t side) {
  TensorView view;
  view.data = reinterpret_cast<const uint8_t*>(values.data());
  view.bytes = static_cast<uint64_t>(side * side) * sizeof(float);
  view.dtype = DataType::kFloat32;
  view.rank = 2;
  view.dims[0] = view.dims[1] = side;
  return view;
}

// arguments: instances, side of the square
void ParseRequest(benchmark::State& state) {
  const auto instances = static_cast<size_t>(state.range(0));
  const int64_t side = state.range(1);
  const std::vector<float> values(static_cast<size_t>(side * side), 1.5F);
  RequestInstances request;
  request.count = instances;
  request.tensors.assign(2 * instances, Square(values, side));
  Buffer message;
  EncodeRequest("addb", "add_common", 0, kAdd.inputs, request, &message);
  RequestEnvelope envelope;
  RequestInstances parsed;
  for (auto _ : state) {
    if (!ParseEnvelope(message.bytes(), &envelope).ok() || !ParseInstances(envelope, kAdd, &parsed).ok()) {
      state.SkipWithError("the request does not parse");
      return;
    }
    benchmark::DoNotOptimize(parsed.tensors.data());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

void EncodeReplies(benchmark::State& state) {
  const auto instances = static_cast<size_t>(state.range(0));
  const int64_t side = state.range(1);
  const std::vector<float> values(static_cast<size_t>(side * side), 1.5F);
  const TensorView output = Square(values, side);
  const std::vector<InstanceResult> results(instances, InstanceResult{ErrorKind::kOk, {}, {&output, 1}});
  const std::string spec(
      "\x0A\x04"
      "addb\x12\x0A"
      "add_common");
  const std::span<const uint8_t> spec_bytes(reinterpret_cast<const uint8_t*>(spec.data()), spec.size());
  OutgoingBody body;
  for (auto _ : state) {
    body.encoded.Clear();
    body.slices.clear();
    EncodeReply(spec_bytes, kAdd, results, &body);
    benchmark::DoNotOptimize(body.encoded.data());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

BENCHMARK(ParseRequest)->Args({1, 2})->Args({16, 2})->Args({1, 724});    // 724 x 724 floats: 2 MiB, twice
BENCHMARK(EncodeReplies)->Args({1, 2})->Args({16, 2})->Args({1, 1024});  // 4 MiB: sent from where it is

}  // namespace
}  // namespace msserving

BENCHMARK_MAIN();
