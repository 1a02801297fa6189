// What reading a JSON request and writing a JSON reply cost.
// Run:  json_bench [--benchmark_filter=...]
#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "net/buffer.h"
#include "protocol/json_number.h"
#include "protocol/json_reply.h"
#include "protocol/json_request.h"

namespace msserving {
namespace {

const MethodSignature kAdd{"add_common", {"x1", "x2"}, {"y"}};
const MethodSignature kRow{"predict", {"image"}, {"y"}};

std::vector<float> RandomFloats(size_t count) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(count);
  for (float& value : values) {
    value = uniform(random);
  }
  return values;
}

std::string RowBody(const std::vector<float>& values) {
  std::string text = "{\"instances\":[{\"image\":[";
  for (size_t i = 0; i < values.size(); ++i) {
    char number[kMaxNumberText];
    text += i > 0 ? "," : "";
    text.append(number, WriteFloat32(values[i], number));
  }
  return text + "]}]}";
}

void ParseBody(benchmark::State& state, const MethodSignature& signature, std::string body) {
  const size_t size = body.size();
  body.resize(size + Buffer::kPadding);
  const std::span bytes(reinterpret_cast<const uint8_t*>(body.data()), size);
  JsonRequestParser parser;
  RequestInstances instances;
  for (auto _ : state) {
    if (!parser.Parse(bytes, signature, &instances).ok()) {
      state.SkipWithError("not parsed");
    }
    benchmark::DoNotOptimize(instances.tensors.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * size));
}

// Two 2x2 inputs, as a client of the tensor_add example sends them.
void ParseSmall(benchmark::State& state) {
  ParseBody(state, kAdd, R"({"instances":[{"x1":[[1.5,2.5],[3.5,4.5]],"x2":[[1.0,1.0],[2.0,2.0]]}]})");
}
BENCHMARK(ParseSmall);

// argument: floats. 784 is an image row; 2,100,000 make about 21 MB.
void ParseRow(benchmark::State& state) {
  ParseBody(state, kRow, RowBody(RandomFloats(static_cast<size_t>(state.range(0)))));
}
BENCHMARK(ParseRow)->Arg(784)->Arg(100'000)->Arg(2'100'000);

void ParseB64(benchmark::State& state) {
  ParseBody(
      state, kRow,
      "{\"instances\":[{\"image\":{\"b64\":\"" + std::string(static_cast<size_t>(state.range(0)), 'A') + "\"}}]}");
}
BENCHMARK(ParseB64)->Arg(4096)->Arg(1 << 20);

void WriteRow(benchmark::State& state) {
  const std::vector<float> values = RandomFloats(static_cast<size_t>(state.range(0)));
  TensorView tensor;
  tensor.data = reinterpret_cast<const uint8_t*>(values.data());
  tensor.bytes = values.size() * sizeof(float);
  tensor.dtype = DataType::kFloat32;
  tensor.rank = 1;
  tensor.dims[0] = static_cast<int64_t>(values.size());
  const InstanceResult result{ErrorKind::kOk, {}, {&tensor, 1}};
  Buffer out;
  for (auto _ : state) {
    out.Clear();
    EncodeJsonReply(kRow, {&result, 1}, &out);
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * out.size()));
}
BENCHMARK(WriteRow)->Arg(4)->Arg(784)->Arg(1'000'000);

}  // namespace
}  // namespace msserving

BENCHMARK_MAIN();
