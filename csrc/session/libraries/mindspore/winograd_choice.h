// Which convolutions are computed by Winograd's method, and in tiles of which size. Knows nothing of MindSpore.
#pragma once

#include <list>
#include <memory>
#include <vector>

#include "session/libraries/mindspore/dnnl_primitives.h"
#include "session/libraries/mindspore/options.h"
#include "session/libraries/mindspore/winograd.h"

namespace msserving::mindspore_session {

// One for all batch sizes of a model: weights are transformed once. One call at a time.
class WinogradChoice {
 public:
  WinogradChoice(std::shared_ptr<DnnlEngine> engine, Winograd rule) : engine_(std::move(engine)), rule_(rule) {}

  const std::shared_ptr<DnnlEngine>& engine() const { return engine_; }

  // Source, residual and destination in the layout DnnlEngine::ChannelsLast. Null if oneDNN shall compute it: the
  // method does not fit, the engine splits its work among threads, or (Winograd::kMeasured) the method is not faster
  // than oneDNN or oneDNN takes images in another layout here. What has been measured for a shape holds as long as the
  // process lives, so that each session computes what the one has computed that was compared with MindSpore. Throws
  // std::runtime_error if oneDNN fails.
  std::shared_ptr<const WinogradConvolution> Choose(const ConvolutionSpec& spec);

 private:
  struct Kept {
    const float* plain;
    std::vector<float> scale;
    std::shared_ptr<const WinogradWeights> weights;
  };

  std::shared_ptr<const WinogradConvolution> Make(const ConvolutionSpec& spec, const WinogradShape& shape, int tile);
  int FastestTile(const ConvolutionSpec& spec);  // 0: oneDNN is faster
  int Measure(const ConvolutionSpec& spec);

  const std::shared_ptr<DnnlEngine> engine_;
  const Winograd rule_;
  std::list<Kept> kept_;
};

}  // namespace msserving::mindspore_session
