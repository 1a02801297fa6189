// Ranks for tests: sessions made of a function, agents on threads of the test, a launcher that starts them.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "distributed/rank_agent.h"
#include "distributed/rank_launcher.h"
#include "distributed/rank_server.h"
#include "session/session.h"

namespace msserving::testing {

inline constexpr int64_t kPatienceNs = 60 * kNanosPerSecond;

inline TensorInfo FloatInfo(std::vector<int64_t> dims) {
  TensorInfo info;
  info.dtype = DataType::kFloat32;
  info.rank = static_cast<int>(dims.size());
  std::copy(dims.begin(), dims.end(), info.dims.begin());
  return info;
}

inline MsServingTensor FloatTensor(std::vector<float>* values, std::vector<int64_t> dims) {
  MsServingTensor tensor{};
  tensor.data = values->data();
  tensor.bytes = values->size() * sizeof(float);
  tensor.dtype = static_cast<int32_t>(DataType::kFloat32);
  tensor.rank = static_cast<int32_t>(dims.size());
  std::copy(dims.begin(), dims.end(), tensor.dims);
  return tensor;
}

inline std::vector<float> Floats(const MsServingTensor& tensor) {
  const auto* data = static_cast<const float*>(tensor.data);
  return {data, data + tensor.bytes / sizeof(float)};
}

// A graph of float tensors with one output.
class FunctionSession final : public Session {
 public:
  using Function = std::function<Status(std::span<const MsServingTensor>, std::vector<float>*, std::vector<int64_t>*)>;

  FunctionSession(std::vector<TensorInfo> inputs, TensorInfo output, Function function,
                  std::vector<int64_t> batch_sizes = {})
      : function_(std::move(function)) {
    info_.inputs = std::move(inputs);
    info_.outputs = {std::move(output)};
    info_.batch_sizes = std::move(batch_sizes);
    info_.way = "function";
  }
  const SessionInfo& describe() const override { return info_; }
  Status Run(std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs) override {
    std::vector<int64_t> dims;
    output_.clear();
    if (Status status = function_(inputs, &output_, &dims); !status.ok()) {
      return status;
    }
    outputs[0] = FloatTensor(&output_, dims);
    return Status::Ok();
  }

 private:
  SessionInfo info_;
  Function function_;
  std::vector<float> output_;
};

// What a collective of ranks in one process is: everybody puts a number in and gets the sum of all.
class AllReduce {
 public:
  explicit AllReduce(size_t ranks) : ranks_(ranks) {}
  // False: given up.
  bool Sum(float* value) {
    std::unique_lock lock(mutex_);
    const uint64_t round = round_;
    sum_ += *value;
    if (++came_ == ranks_) {
      result_ = std::exchange(sum_, 0.0f);
      came_ = 0;
      ++round_;
      all_.notify_all();
    } else {
      all_.wait(lock, [&] { return round_ != round || given_up_; });
    }
    *value = result_;
    return !given_up_;
  }
  void GiveUp() {
    {
      std::lock_guard lock(mutex_);
      given_up_ = true;
    }
    all_.notify_all();
  }

 private:
  const size_t ranks_;
  std::mutex mutex_;
  std::condition_variable all_;
  size_t came_ = 0;
  uint64_t round_ = 0;
  float sum_ = 0;
  float result_ = 0;
  bool given_up_ = false;
};

// One agent on a thread of its own.
class AgentThread {
 public:
  AgentThread(RankAgentOptions options, std::vector<std::shared_ptr<Session>> sessions) {
    options.leave = [this](const std::string& why) {
      std::lock_guard lock(mutex_);
      forced_ = why;
    };
    thread_ = std::thread([this, options, sessions]() mutable {
      std::unique_ptr<RankAgent> agent;
      std::string why;
      if (Status status = RankAgent::Create(options, kPatienceNs, &agent); !status.ok()) {
        why = status.message();
      } else if (status = agent->Register(sessions, std::vector<std::string>(sessions.size(), "rank.mindir"));
                 !status.ok()) {
        why = status.message();
      } else {
        {
          std::lock_guard lock(mutex_);
          agent_ = agent.get();
        }
        why = agent->Run({});
      }
      std::lock_guard lock(mutex_);
      agent_ = nullptr;
      why_ = why;
    });
  }
  ~AgentThread() { Join(); }

  // As a process that ends: its connection ends with it.
  void Kill() {
    std::lock_guard lock(mutex_);
    if (agent_ != nullptr) {
      agent_->RequestStop();
    }
  }
  std::string Join() {
    if (thread_.joinable()) {
      thread_.join();
    }
    std::lock_guard lock(mutex_);
    return why_;
  }
  std::string forced() {
    std::lock_guard lock(mutex_);
    return forced_;
  }

 private:
  std::mutex mutex_;
  RankAgent* agent_ = nullptr;
  std::string why_;
  std::string forced_;
  std::thread thread_;
};

template <typename Condition>
bool WaitUntil(const Condition& condition) {
  for (int i = 0; i < 6000; ++i) {
    if (condition()) {
      return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

}  // namespace msserving::testing
