// What an instance costs the worker: rings, batching, running and answering, with a model whose own work is next to
// nothing. addb: two float32 2x2 inputs, one output, batch 32. The benchmark's thread plays the server with blocks
// written in advance; `worker_ns` is the CPU time of all other threads by instance, `batch` the rows in a run.
// Run:  taskset -c 0,1 worker_bench
#include <benchmark/benchmark.h>

#include <ctime>
#include <thread>

#include "../../tests/cpp/support/server_side.h"
#include "worker/executor.h"

namespace msserving {
namespace {

using testing_support::Require;
using testing_support::ServerSide;

int64_t CpuNs(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return now.tv_sec * kNanosPerSecond + now.tv_nsec;
}

// CPU time of every thread but this one.
int64_t OthersCpuNs() { return CpuNs(CLOCK_PROCESS_CPUTIME_ID) - CpuNs(CLOCK_THREAD_CPUTIME_ID); }

class AddSession final : public Session {
 public:
  AddSession() {
    TensorInfo info;
    info.dtype = DataType::kFloat32;
    info.rank = 3;
    info.dims = {32, 2, 2};
    info_.inputs = {info, info};
    info_.outputs = {info};
    info_.batch_sizes = {1, 2, 4, 8, 16, 32};
  }
  const SessionInfo& describe() const override { return info_; }
  Status Run(std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs) override {
    const auto* a = static_cast<const float*>(inputs[0].data);
    const auto* b = static_cast<const float*>(inputs[1].data);
    const size_t count = inputs[0].bytes / sizeof(float);
    for (size_t i = 0; i < count; ++i) {
      sums_[i] = a[i] + b[i];
    }
    outputs[0] = inputs[0];
    outputs[0].data = sums_;
    return Status::Ok();
  }

 private:
  SessionInfo info_;
  alignas(64) float sums_[32 * 4];
};

// Hands every Python instance its first input back, as a stage that does nothing would.
void Echo(void*, const PythonStageCall* call) {
  for (uint32_t i = 0; i < call->instances; ++i) {
    call->sink->Put(i, 0, call->input[size_t{i} * call->inputs]);
  }
}

MethodGraph AddGraph(bool python) {
  MethodGraph graph;
  graph.signature = {"add", {"x1", "x2"}, {"y"}};
  Stage model;
  model.inputs = {{0, 0}, {0, 1}};
  if (python) {
    Stage cast;
    cast.kind = StageKind::kPython;
    cast.inputs = {{0, 0}};
    cast.tag = "Preprocess";
    graph.stages.push_back(cast);
    model.inputs[0] = {1, 0};
  }
  graph.stages.push_back(model);
  graph.returns = {{static_cast<uint16_t>(graph.stages.size()), 0}};
  return graph;
}

// A fixed set of requests that go round: answered, released, sent again.
class Carousel {
 public:
  Carousel(bool python, size_t depth, uint32_t instances) : instances_(instances) {
    std::unique_ptr<Model> model;
    ModelOptions options;
    options.with_batch_dim = true;
    Require(Model::Create({std::make_shared<AddSession>()}, options, &model));
    executor_.AddModel(std::move(model));
    executor_.SetPythonStages(Echo, nullptr);
    Require(executor_.AddMethod(AddGraph(python)));
    executor_.AddChannel(server_.MakeWorkerChannel());
    SlabAllocator slab(server_.requests_memory().size());
    const float values[4] = {1, 2, 3, 4};
    TensorView view;
    view.data = reinterpret_cast<const uint8_t*>(values);
    view.bytes = sizeof(values);
    view.dtype = DataType::kFloat32;
    view.rank = 2;
    view.dims[0] = view.dims[1] = 2;
    const std::vector<TensorView> views(size_t{2} * instances, view);
    const uint64_t bytes = RequestBlockBytes(views);
    for (size_t i = 0; i < depth; ++i) {
      const uint64_t offset = slab.Allocate(bytes);
      WriteRequestBlock(server_.requests_memory().base(), offset, i, kNoDeadline, 0, instances, 2, views);
      entries_.push_back(MakeEntry(i, offset, bytes));
    }
    left_.assign(depth, 0);
    thread_ = std::thread([this] {
      RunEnd end;
      Require(executor_.Run(server_.WorkerDoorbell(), {}, &end));
    });
  }

  ~Carousel() {
    executor_.RequestStop();
    thread_.join();
  }

  void SendAll() {
    for (size_t i = 0; i < entries_.size(); ++i) {
      Send(i);
    }
    Ring(server_.requests());
  }

  // Waits for replies; every request that is complete goes out again if `again`. Returns how many were complete.
  size_t Turn(bool again) {
    RingEntry entry;
    size_t complete = 0;
    while (server_.replies().Pop(&entry)) {
      const auto* record = reinterpret_cast<const ReplyRecord*>(server_.replies_memory().base() + entry.words[1]);
      const size_t request = record->request;
      left_[request] -= record->count;
      server_.releases().Push(entry);
      if (left_[request] == 0) {
        ++complete;
        if (again) {
          Send(request);
        }
      }
    }
    Ring(server_.requests());
    Ring(server_.releases());
    if (complete == 0) {
      server_.Block(1000);
    }
    return complete;
  }

  ExecutorStats stats() const { return executor_.stats(); }
  uint32_t instances() const { return instances_; }
  size_t depth() const { return entries_.size(); }

 private:
  void Send(size_t request) {
    left_[request] = instances_;
    server_.requests().Push(entries_[request]);
  }
  void Ring(RingProducer& ring) {
    if (ring.ConsumerMustWake()) {
      eventfd_write(server_.worker_doorbell(), 1);
    }
  }

  ServerSide server_;
  Executor executor_;
  const uint32_t instances_;
  std::vector<RingEntry> entries_;
  std::vector<uint32_t> left_;
  std::thread thread_;
};

void Go(benchmark::State& state, bool python) {
  Carousel carousel(python, static_cast<size_t>(state.range(0)), static_cast<uint32_t>(state.range(1)));
  constexpr size_t kTurn = 1000;
  carousel.SendAll();
  for (size_t warm = 0; warm < kTurn; warm += carousel.Turn(true)) {
  }
  const ExecutorStats before = carousel.stats();
  const int64_t cpu_before = OthersCpuNs();
  size_t requests = 0;
  for (auto _ : state) {
    for (size_t done = 0; done < kTurn;) {
      const size_t complete = carousel.Turn(true);
      done += complete;
      requests += complete;
    }
  }
  const int64_t cpu = OthersCpuNs() - cpu_before;
  const ExecutorStats after = carousel.stats();
  for (size_t left = carousel.depth(); left > 0;) {
    left -= carousel.Turn(false);
  }
  const double instances = static_cast<double>(requests) * carousel.instances();
  const StageStats& was = before.stages.back();
  const StageStats& is = after.stages.back();
  state.SetItemsProcessed(static_cast<int64_t>(instances));
  state.counters["worker_ns"] = static_cast<double>(cpu) / instances;
  state.counters["batch"] =
      static_cast<double>(is.model.rows - was.model.rows) / static_cast<double>(is.model.runs - was.model.runs);
  state.counters["wakeups"] = static_cast<double>(after.wakeups - before.wakeups) / static_cast<double>(requests);
}

// arguments: requests in flight, instances a request
void ModelOnly(benchmark::State& state) { Go(state, false); }
BENCHMARK(ModelOnly)->Args({1, 1})->Args({64, 1})->Args({256, 1})->Args({16, 16})->Args({64, 32})->UseRealTime();

void PythonThenModel(benchmark::State& state) { Go(state, true); }
BENCHMARK(PythonThenModel)->Args({1, 1})->Args({64, 1})->Args({256, 1})->UseRealTime();

}  // namespace
}  // namespace msserving

BENCHMARK_MAIN();
