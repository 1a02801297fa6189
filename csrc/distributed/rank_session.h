// A graph that all ranks run together, as one session.
#pragma once

#include <memory>
#include <utility>

#include "distributed/rank_runner.h"
#include "session/session.h"

namespace msserving {

class RankSession final : public Session {
 public:
  RankSession(std::shared_ptr<RankRunner> runner, uint32_t subgraph, SessionInfo info, uint32_t place = 0)
      : runner_(std::move(runner)), subgraph_(subgraph), info_(std::move(info)), place_(place) {}
  const SessionInfo& describe() const override { return info_; }
  Status Run(std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs) override {
    return runner_->Run(place_, subgraph_, inputs, outputs);
  }
  uint32_t runs_at_once() const override { return runner_->places(); }
  std::shared_ptr<Session> Sibling(uint32_t number) const override {
    return std::make_shared<RankSession>(runner_, subgraph_, info_, number);
  }

 private:
  const std::shared_ptr<RankRunner> runner_;
  const uint32_t subgraph_;
  const SessionInfo info_;
  const uint32_t place_;
};

}  // namespace msserving
