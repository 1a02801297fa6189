#include "session/libraries/mindspore/winograd_choice.h"

#include <time.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <utility>

#include "session/libraries/mindspore/winograd_kernels.h"

namespace msserving::mindspore_session {
namespace {

// The method must save at least this share of oneDNN's time.
constexpr double kWorthIt = 0.95;
// Runs of each way, and when to stop. Of large batches a part is measured: so many multiplications at most, or one
// image.
constexpr int kFewestRuns = 3, kMostRuns = 8;
constexpr double kEnoughSeconds = 0.03;
constexpr int64_t kMultiplications = 500'000'000;

double ThreadSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// The fastest run's processor time. Weights come from memory, as they do in a model whose weights fill the caches.
template <typename Function>
double FastestRun(const void* weights, size_t bytes, const Function& run) {
  double fastest = std::numeric_limits<double>::infinity();
  double sum = 0;
  run();
  for (int i = 0; i < kMostRuns && (i < kFewestRuns || sum < kEnoughSeconds); ++i) {
    winograd::Evict(weights, bytes);
    const double begin = ThreadSeconds();
    run();
    const double seconds = ThreadSeconds() - begin;
    fastest = std::min(fastest, seconds);
    sum += seconds;
  }
  return fastest;
}

std::optional<WinogradShape> ShapeOf(const ConvolutionSpec& spec) {
  const WindowSpec& window = spec.window;
  const std::vector<int64_t> ones{1, 1}, threes{3, 3};
  if (window.kernel != threes || window.strides != ones || window.dilations != ones || spec.groups != 1) {
    return std::nullopt;
  }
  WinogradShape shape{window.source[0], window.source[2], window.source[3], window.source[1], window.destination[1],
                      window.before[0], window.before[1], window.after[0],  window.after[1]};
  if (!FitsWinograd(shape) || shape.OutHeight() != window.destination[2] || shape.OutWidth() != window.destination[3]) {
    return std::nullopt;
  }
  return shape;
}

ConvolutionSpec PartOf(const ConvolutionSpec& spec) {
  ConvolutionSpec part = spec;
  const auto& out = spec.window.destination;
  const int64_t each = out[1] * out[2] * out[3] * spec.window.source[1] * 9;
  const int64_t images = std::clamp<int64_t>(kMultiplications / each, 1, out[0]);
  part.window.source[0] = part.window.destination[0] = images;
  return part;
}

}  // namespace

std::shared_ptr<const WinogradConvolution> WinogradChoice::Choose(const ConvolutionSpec& spec) {
  if (rule_ == Winograd::kNever || engine_->splits_work() || !HasWinograd()) return nullptr;
  const auto shape = ShapeOf(spec);
  if (!shape) return nullptr;
  const int tile = rule_ == Winograd::kTilesOf2 ? 2 : rule_ == Winograd::kTilesOf4 ? 4 : FastestTile(PartOf(spec));
  return tile == 0 ? nullptr : Make(spec, *shape, tile);
}

std::shared_ptr<const WinogradConvolution> WinogradChoice::Make(const ConvolutionSpec& spec, const WinogradShape& shape,
                                                                int tile) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float low = spec.activation == Activation::kNone ? -infinity : 0;
  const float high = spec.activation == Activation::kRelu6 ? 6 : infinity;
  auto found = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& kept) {
    return kept.plain == spec.weights && kept.weights->tile() == tile && kept.scale == spec.scale;
  });
  if (found == kept_.end()) {
    auto weights =
        std::make_shared<const WinogradWeights>(spec.weights, spec.scale, shape.channels, shape.outputs, tile);
    found = kept_.insert(kept_.end(), {spec.weights, spec.scale, std::move(weights)});
  }
  return std::make_shared<const WinogradConvolution>(shape, found->weights, WinogradEnd{spec.shift, low, high});
}

int WinogradChoice::FastestTile(const ConvolutionSpec& spec) {
  using Key = std::array<int64_t, 10>;
  static std::mutex mutex;
  static std::map<Key, int> measured;
  const WindowSpec& window = spec.window;
  const Key key{window.source[0], window.source[1], window.source[2], window.source[3], window.destination[1],
                window.before[0], window.before[1], window.after[0],  window.after[1],  spec.has_residual ? 1 : 0};
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = measured.find(key);
  if (found != measured.end()) return found->second;
  return measured[key] = Measure(spec);
}

int WinogradChoice::Measure(const ConvolutionSpec& spec) {
  const Primitive direct = engine_->MakeConvolution(spec);
  if (direct.handle == nullptr) return 0;
  const Layout source_layout = engine_->ChannelsLast(spec.window.source);
  const Layout destination_layout = engine_->ChannelsLast(spec.window.destination);
  if (!engine_->Equal(direct.source, source_layout) || !engine_->Equal(direct.destination, destination_layout))
    return 0;

  std::vector<std::shared_ptr<dnnl_memory>> memories;
  std::vector<dnnl_exec_arg_t> arguments;
  const auto add = [&](int argument, const Layout& layout) -> float* {
    if (layout == nullptr) return nullptr;
    memories.push_back(engine_->OwnMemory(layout));
    arguments.push_back({argument, memories.back().get()});
    auto* data = static_cast<float*>(engine_->Data(memories.back().get()));
    std::fill_n(data, engine_->Bytes(layout) / sizeof(float), 1.f);
    return data;
  };
  const float* source = add(DNNL_ARG_SRC, direct.source);
  const float* residual = add(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, direct.residual);
  float* destination = add(DNNL_ARG_DST, direct.destination);
  add(DNNL_ARG_SCRATCHPAD, direct.scratchpad);
  for (const auto& [argument, memory] : direct.constants) arguments.push_back({argument, memory.get()});

  const auto& weights = direct.constants.front().second;
  const size_t weight_bytes = engine_->Bytes(engine_->Plain(
      {spec.window.destination[1], spec.window.source[1], spec.window.kernel[0], spec.window.kernel[1]}));
  double fastest = kWorthIt * FastestRun(engine_->Data(weights.get()), weight_bytes, [&] {
                     if (!engine_->Execute(direct, arguments)) throw std::runtime_error("a primitive of oneDNN failed");
                   });
  int best = 0;
  for (const int tile : {2, 4}) {
    const auto kept_before = kept_.size();
    const auto winograd = Make(spec, *ShapeOf(spec), tile);
    const Layout scratch_layout = engine_->Plain({static_cast<int64_t>(winograd->ScratchBytes() / sizeof(float))});
    const auto scratch = engine_->OwnMemory(scratch_layout);
    auto* memory = static_cast<float*>(engine_->Data(scratch.get()));
    const double seconds = FastestRun(winograd->weights().data(), winograd->weights().bytes(),
                                      [&] { winograd->Run(source, residual, destination, memory); });
    if (seconds < fastest) {
      fastest = seconds;
      best = tile;
    }
    if (kept_.size() > kept_before) kept_.pop_back();  // made again if it is chosen
  }
  return best;
}

}  // namespace msserving::mindspore_session
