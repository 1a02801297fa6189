// A dispatcher and a health source that do what a test tells them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "servable/dispatcher.h"
#include "servable/health.h"

namespace msserving {

// Memory behind a reply that counts its release.
class CountedReplyMemory final : public ReplyMemory {
 public:
  explicit CountedReplyMemory(int* released) : released_(released) {}
  void Release() override {
    ++*released_;
    delete this;
  }

 private:
  int* released_;
};

// Knows the servables it is given. Requests wait in `pending` until Answer(); tensors are copied, as a dispatcher has
// to. One thread only.
class FakeDispatcher final : public Dispatcher {
 public:
  struct Tensor {
    TensorView view;
    std::string bytes;
  };
  struct Request {
    std::string servable;
    std::string method;
    size_t instances = 0;
    std::vector<Tensor> tensors;
    int64_t deadline_ns = 0;
    ReplySink* sink = nullptr;
  };

  void AddMethod(const std::string& servable, MethodSignature method) {
    methods_[servable].push_back(std::move(method));
  }

  Status Find(std::string_view servable, uint64_t version, std::string_view method, int64_t,
              MethodTarget* target) override {
    asked_version = version;
    if (!find_refusal.ok()) {
      return find_refusal;
    }
    const auto found = methods_.find(std::string(servable));
    if (found == methods_.end()) {
      return {ErrorKind::kServableUnavailable, "servable is not available"};
    }
    for (uint32_t i = 0; i < found->second.size(); ++i) {
      if (found->second[i].name == method) {
        // The dispatcher's signature ends with the wake-up, so it is a fresh one every time.
        signature_ = std::make_unique<MethodSignature>(found->second[i]);
        *target = {signature_.get(), const_cast<std::string*>(&found->first), i};
        return Status::Ok();
      }
    }
    return {ErrorKind::kMethodUnavailable, "method is not available"};
  }

  Status Submit(const MethodTarget& target, const RequestInstances& instances, int64_t deadline_ns, ReplySink* sink,
                RequestTicket* ticket) override {
    if (!submit_refusal.ok()) {
      return submit_refusal;
    }
    Request request;
    request.servable = *static_cast<std::string*>(target.servable);
    request.method = target.signature->name;
    request.instances = instances.count;
    request.deadline_ns = deadline_ns;
    request.sink = sink;
    for (const TensorView& view : instances.tensors) {
      request.tensors.push_back({view, {reinterpret_cast<const char*>(view.data), view.bytes}});
    }
    signature_.reset();
    *ticket = ++last_ticket_;
    pending[*ticket] = std::move(request);
    return Status::Ok();
  }

  void Cancel(RequestTicket ticket) override { cancelled += static_cast<int>(pending.erase(ticket)); }

  // Answers the oldest request.
  void Answer(std::span<const InstanceResult> results) {
    ReplySink* sink = pending.begin()->second.sink;
    pending.erase(pending.begin());
    sink->OnReply({results, ReplyMemoryPtr(new CountedReplyMemory(&released))});
  }

  Status find_refusal;
  Status submit_refusal;
  uint64_t asked_version = 0;
  std::map<RequestTicket, Request> pending;
  int cancelled = 0;
  int released = 0;

 private:
  std::map<std::string, std::vector<MethodSignature>> methods_;
  std::unique_ptr<MethodSignature> signature_;
  RequestTicket last_ticket_ = 0;
};

class FakeHealth final : public HealthSource {
 public:
  bool live() override { return is_live; }
  bool ready() override { return is_ready; }
  ServableHealth servable(std::string_view name, uint64_t version) override {
    const auto found = servables.find({std::string(name), version});
    return found == servables.end() ? ServableHealth::kUnknown : found->second;
  }
  std::map<std::pair<std::string, uint64_t>, ServableHealth> servables;
  bool is_live = true;
  bool is_ready = true;
};

}  // namespace msserving
