// A graph that all ranks run together, as one session.
#pragma once

#include <memory>
#include <utility>

#include "distributed/rank_runner.h"
#include "session/session.h"

namespace msserving {

class RankSession final : public Session {
 public:
  RankSession(std::shared_ptr<RankRunner> runner, uint32_t subgraph, SessionInfo info)
      : runner_(std::move(runner)), subgraph_(subgraph), info_(std::move(info)) {}
  const SessionInfo& describe() const override { return info_; }
  Status Run(std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs) override {
    return runner_->Run(subgraph_, inputs, outputs);
  }

 private:
  const std::shared_ptr<RankRunner> runner_;
  const uint32_t subgraph_;
  const SessionInfo info_;
};

}  // namespace msserving
