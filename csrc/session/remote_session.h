// A graph that is run by another process: what is known of it, and nothing to run it with.
#pragma once

#include <utility>

#include "session/session.h"

namespace msserving {

class RemoteSession final : public Session {
 public:
  explicit RemoteSession(SessionInfo info) : info_(std::move(info)) {}
  const SessionInfo& describe() const override { return info_; }
  Status Run(std::span<const MsServingTensor>, std::span<MsServingTensor>) override {
    return Status(ErrorKind::kInternal, "this process runs no models");
  }

 private:
  SessionInfo info_;
};

}  // namespace msserving
