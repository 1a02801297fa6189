// The session library's table: a session is one model's graph, compiled for one or several batch sizes.

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "mindspore_serving/session.h"
#include "session/libraries/mindspore/backend_run.h"
#include "session/libraries/mindspore/compiled_graph.h"
#include "session/libraries/mindspore/kernel_replay.h"
#include "session/libraries/mindspore/options.h"
#include "session/libraries/mindspore/thread_pool.h"

// The loader reads this line out of the file before it opens the library.
extern "C" __attribute__((visibility("default"), used)) const char msserving_session_built_for[] =
    "msserving-session-built-for-mindspore=" MSSERVING_MINDSPORE_VERSION "\n";

namespace msserving::mindspore_session {
namespace {

// Graphs run one at a time, so that one block holds the intermediate results of any of them.
class ScratchMemory {
 public:
  explicit ScratchMemory(size_t bytes) : memory_(std::aligned_alloc(MS_SERVING_SESSION_ALIGNMENT, Rounded(bytes))) {
    if (memory_ == nullptr) throw std::bad_alloc();
  }
  ~ScratchMemory() { std::free(memory_); }
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;
  void* get() const { return memory_; }

 private:
  static size_t Rounded(size_t bytes) {
    return std::max<size_t>((bytes + MS_SERVING_SESSION_ALIGNMENT - 1) / MS_SERVING_SESSION_ALIGNMENT, 1) *
           MS_SERVING_SESSION_ALIGNMENT;
  }
  void* memory_;
};

template <typename Runner>
std::vector<std::unique_ptr<GraphRunner>> MakeRunners(const std::vector<CompiledGraph>& graphs) {
  std::vector<std::unique_ptr<GraphRunner>> runners;
  runners.reserve(graphs.size());
  for (const CompiledGraph& graph : graphs) runners.push_back(std::make_unique<Runner>(graph));
  return runners;
}

std::string Told(const FusedCounts& fused) {
  std::string text;
  const auto add = [&](size_t count, const char* one, const char* many) {
    if (count == 0) return;
    text += (text.empty() ? ", " : " and ") + std::to_string(count) + (count == 1 ? one : many);
  };
  add(fused.convolutions, " convolution", " convolutions");
  add(fused.dense_layers, " dense layer", " dense layers");
  if (!text.empty()) text += " fused";
  if (fused.winograd > 0) text += ", " + std::to_string(fused.winograd) + " of them by Winograd's method";
  return text;
}

constexpr int kLeaveExitCode = 70;  // EX_SOFTWARE

// First line, without the decoration that MindSpore puts around its messages.
std::string ShortReason(const std::exception& error) {
  std::string text = error.what();
  text.erase(0, text.find_first_not_of(" \n"));
  const size_t decoration = text.find("\n\n---");
  if (decoration != std::string::npos) text.resize(decoration);
  constexpr size_t kMost = 600;
  if (text.size() > kMost) text = text.substr(0, kMost) + " ...";
  return text;
}

}  // namespace
}  // namespace msserving::mindspore_session

using namespace msserving::mindspore_session;  // NOLINT(build/namespaces): the ABI names its type globally

struct MsServingSession {
  explicit MsServingSession(const Options& options);
  void Run(const MsServingTensor* inputs, MsServingTensor* outputs);

  MsServingSessionInfo info{};
  std::string last_error;

 private:
  void ChooseWay(const Options& options, const std::vector<CompiledGraph>& graphs);
  void MakeReplays(const Options& options, const std::vector<CompiledGraph>& graphs);
  void SetBatchOfUnusedInputs(std::vector<CompiledGraph>* graphs) const;
  void FindBatchInput(const std::vector<CompiledGraph>& graphs);
  void FillInfo();
  GraphRunner& RunnerFor(const MsServingTensor* inputs);

  const bool leave_when_spoilt_;
  std::vector<int64_t> batch_sizes_;  // ascending; empty: one graph, not for a certain batch size
  std::vector<std::unique_ptr<GraphRunner>> runners_;
  std::unique_ptr<ScratchMemory> scratch_;
  size_t batch_input_ = 0;  // an input whose leading dimension is the batch
  std::string way_;
  std::vector<TensorSpec> input_specs_, output_specs_;  // of the largest batch size
  std::vector<MsServingTensorInfo> inputs_, outputs_;
};

MsServingSession::MsServingSession(const Options& options) : leave_when_spoilt_(options.leave_when_spoilt) {
  if (options.mindspore_version != MSSERVING_MINDSPORE_VERSION) {
    throw std::runtime_error("this session library was built for MindSpore " MSSERVING_MINDSPORE_VERSION
                             ", but MindSpore " +
                             (options.mindspore_version.empty() ? "of an unknown version" : options.mindspore_version) +
                             " is running; build one for it with: python -m mindspore_serving.build_session");
  }
  std::vector<CompiledGraph> graphs;
  for (const PhaseOption& phase : options.phases) {
    graphs.emplace_back(phase.phase);
    if (phase.batch_size > 0) batch_sizes_.push_back(phase.batch_size);
  }
  if (!SizeKernelPool(options.kernel_threads)) throw std::runtime_error("MindSpore has no pool of kernel threads yet");
  SetBatchOfUnusedInputs(&graphs);
  FindBatchInput(graphs);
  input_specs_ = graphs.back().input_specs;
  output_specs_ = graphs.back().output_specs;
  ChooseWay(options, graphs);
  size_t bytes = 0;
  for (const auto& runner : runners_) bytes = std::max(bytes, runner->ScratchBytes());
  scratch_ = std::make_unique<ScratchMemory>(bytes);
  for (const auto& runner : runners_) runner->SetScratch(scratch_->get());
  FillInfo();
}

void MsServingSession::ChooseWay(const Options& options, const std::vector<CompiledGraph>& graphs) {
  if (options.way != Way::kRun) {
    try {
      MakeReplays(options, graphs);
      return;
    } catch (const WrongWay& reason) {
      if (options.way == Way::kReplay) throw std::runtime_error(std::string("kernel replay: ") + reason.what());
    }
  }
  runners_ = MakeRunners<BackendRun>(graphs);
  way_ = "backend run";
}

void MsServingSession::MakeReplays(const Options& options, const std::vector<CompiledGraph>& graphs) {
  std::shared_ptr<DnnlEngine> engine;
  std::shared_ptr<WinogradChoice> choice;
  std::string problem;
  if (options.fuse.all || !options.fuse.batch_sizes.empty()) {
    if (const DnnlLibrary* library = DnnlLibrary::Find(&problem)) {
      if (options.kernel_threads == 1) {
        engine = std::make_shared<DnnlEngine>(library);
      } else if (options.kernel_threads == 0) {
        problem = "kernel_threads must be given";
      } else if (library->stream_create_threadpool == nullptr) {
        problem = "its oneDNN takes no threads of this interface";
      } else {
        engine = std::make_shared<DnnlEngine>(library, std::make_shared<KernelThreads>(options.kernel_threads));
      }
    }
  }
  if (engine != nullptr) choice = std::make_shared<WinogradChoice>(engine, options.winograd);
  FusedCounts fused;
  std::vector<std::unique_ptr<GraphRunner>> runners;
  for (size_t i = 0; i < graphs.size(); ++i) {
    const bool fuse = options.fuse.Includes(options.phases[i].batch_size);
    auto replay = std::make_unique<KernelReplay>(graphs[i], fuse ? choice : nullptr);
    fused.convolutions = std::max(fused.convolutions, replay->fused().convolutions);
    fused.dense_layers = std::max(fused.dense_layers, replay->fused().dense_layers);
    fused.winograd = std::max(fused.winograd, replay->fused().winograd);
    runners.push_back(std::move(replay));
  }
  if (engine != nullptr) engine->ForgetUnusedWeights();
  runners_ = std::move(runners);
  way_ = "kernel replay" + Told(fused);
  if (!problem.empty()) way_ += " (nothing is fused: " + problem + ")";
}

// An input that no kernel reads has the batch size of whichever phase was compiled last.
void MsServingSession::SetBatchOfUnusedInputs(std::vector<CompiledGraph>* graphs) const {
  for (size_t i = 0; i < batch_sizes_.size(); ++i) {
    for (size_t input = 0; input < (*graphs)[i].input_specs.size(); ++input) {
      auto& dims = (*graphs)[i].input_specs[input].dims;
      if ((*graphs)[i].input_is_read[input] || dims.empty()) continue;
      if (std::find(batch_sizes_.begin(), batch_sizes_.end(), dims[0]) != batch_sizes_.end()) dims[0] = batch_sizes_[i];
    }
  }
}

void MsServingSession::FindBatchInput(const std::vector<CompiledGraph>& graphs) {
  for (const CompiledGraph& graph : graphs) {
    if (graph.input_specs.size() != graphs[0].input_specs.size() ||
        graph.output_specs.size() != graphs[0].output_specs.size()) {
      throw std::runtime_error("the phases belong to different models");
    }
  }
  if (batch_sizes_.empty()) return;
  const size_t inputs = graphs[0].input_specs.size();
  for (; batch_input_ < inputs; ++batch_input_) {
    bool fits = true;
    for (size_t i = 0; i < graphs.size(); ++i) {
      const auto& dims = graphs[i].input_specs[batch_input_].dims;
      fits = fits && !dims.empty() && dims[0] == batch_sizes_[i];
    }
    if (fits) return;
  }
  throw std::runtime_error("no input has the batch sizes of `phases` as its leading dimension");
}

void MsServingSession::FillInfo() {
  for (const TensorSpec& spec : input_specs_) inputs_.push_back(spec.ToInfo());
  for (const TensorSpec& spec : output_specs_) outputs_.push_back(spec.ToInfo());
  info.inputs = inputs_.data();
  info.inputs_count = inputs_.size();
  info.outputs = outputs_.data();
  info.outputs_count = outputs_.size();
  info.batch_sizes = batch_sizes_.data();
  info.batch_sizes_count = batch_sizes_.size();
  info.way = way_.c_str();
}

GraphRunner& MsServingSession::RunnerFor(const MsServingTensor* inputs) {
  if (batch_sizes_.empty()) return *runners_[0];
  const int64_t batch = inputs[batch_input_].rank > 0 ? inputs[batch_input_].dims[0] : 0;
  const auto found = std::lower_bound(batch_sizes_.begin(), batch_sizes_.end(), batch);
  if (found == batch_sizes_.end() || *found != batch) {
    throw std::runtime_error("the graph was not compiled for batch size " + std::to_string(batch));
  }
  return *runners_[static_cast<size_t>(found - batch_sizes_.begin())];
}

void MsServingSession::Run(const MsServingTensor* inputs, MsServingTensor* outputs) {
  GraphRunner& runner = RunnerFor(inputs);
  if (!leave_when_spoilt_) {
    runner.Run(inputs, outputs);
    return;
  }
  // A new process has a new graph. Whoever supervises this one runs there what is unanswered here.
  if (runner.is_spoilt()) std::_Exit(kLeaveExitCode);
  try {
    runner.Run(inputs, outputs);
  } catch (...) {
    if (runner.is_spoilt()) {
      std::fputs("A run of the model has failed, and MindSpore refuses every later run of its graph: leaving\n",
                 stderr);
      kill(getpid(), SIGTERM);  // once the answer is out
    }
    throw;
  }
}

namespace {

int Open(const MsServingOption* options, size_t count, MsServingSession** session, char* error, size_t error_size) {
  *session = nullptr;
  try {
    *session = new MsServingSession(ParseOptions(options, count));
    return 0;
  } catch (const std::exception& e) {
    if (error_size > 0) std::snprintf(error, error_size, "%s", ShortReason(e).c_str());
  } catch (...) {
    if (error_size > 0) std::snprintf(error, error_size, "MindSpore threw something that is not an exception");
  }
  return 1;
}

const MsServingSessionInfo* DescribeSession(const MsServingSession* session) { return &session->info; }

int Run(MsServingSession* session, const MsServingTensor* inputs, MsServingTensor* outputs) {
  try {
    session->Run(inputs, outputs);
    return 0;
  } catch (const std::exception& e) {
    session->last_error = ShortReason(e);
  } catch (...) {
    session->last_error = "MindSpore threw something that is not an exception";
  }
  return 1;
}

const char* LastError(const MsServingSession* session) { return session->last_error.c_str(); }

void Close(MsServingSession* session) { delete session; }

constexpr MsServingSessionLibrary kLibrary = {MS_SERVING_SESSION_ABI_VERSION,
                                              "mindspore " MSSERVING_MINDSPORE_VERSION,
                                              Open,
                                              DescribeSession,
                                              Run,
                                              LastError,
                                              Close};

}  // namespace

extern "C" __attribute__((visibility("default"))) const MsServingSessionLibrary* ms_serving_session_library() {
  return &kLibrary;
}
