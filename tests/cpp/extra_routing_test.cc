// Which worker the router gives a request to when some workers run no models.
#include <gtest/gtest.h>

#include <sys/eventfd.h>

#include <map>
#include <memory>
#include <string>

#include "server/loop_dispatcher.h"
#include "server/signature_json.h"
#include "support/server_side.h"

namespace msserving {
namespace {

constexpr size_t kSlab = 1 << 20;

class Sink : public ReplySink {
 public:
  void OnReply(Reply reply) override { errors.push_back(reply.results[0].error); }
  std::vector<ErrorKind> errors;
};

class ExtraRouting : public testing::Test {
 protected:
  ExtraRouting() {
    testing_support::Require(SharedMemory::Create("requests", kSlab, requests_.get()));
    // As a worker says it: a model alone, Python around a model, Python alone.
    testing_support::Require(ParseSignature(R"({"methods": [
        {"name": "model", "inputs": [], "outputs": ["y"], "stages": ["model"]},
        {"name": "mixed", "inputs": [], "outputs": ["y"], "stages": ["python", "model"]},
        {"name": "python", "inputs": [], "outputs": ["y"], "stages": ["python"]}], "models": [{"file": "m"}]})",
                                            &signature_));
    signature_.name = "s";
    signature_.version = 1;
  }

  void Add(uint64_t id, bool extra) {
    WorkerChannel channel;
    testing_support::Require(SharedMemory::Create("rings", ChannelLayout::kBytes, &channel.control));
    testing_support::Require(SharedMemory::Create("replies", kSlab, &channel.replies));
    auto link = std::make_shared<WorkerLink>(id, std::move(channel), UniqueFd(eventfd(0, EFD_NONBLOCK)));
    link->extra = extra;
    links_[id] = link.get();
    dispatcher_.AddWorker(signature_, requests_, link);
    dispatcher_.JoinWorker(link->worker());
  }

  Status Submit(const std::string& method) {
    MethodTarget target;
    if (Status status = dispatcher_.Find("s", 0, method, kNoDeadline, &target); !status.ok()) {
      return status;
    }
    RequestInstances request;
    request.count = 1;
    RequestTicket ticket;
    return dispatcher_.Submit(target, request, kNoDeadline, &sink_, &ticket);
  }

  uint64_t With(uint64_t id) const { return links_.at(id)->outstanding_requests; }

  EventLoop loop_;
  std::shared_ptr<DispatchLimits> limits_ = std::make_shared<DispatchLimits>();
  Sink sink_;
  LoopDispatcher dispatcher_{&loop_, UniqueFd(eventfd(0, EFD_NONBLOCK)), limits_};
  std::shared_ptr<SharedMemory> requests_ = std::make_shared<SharedMemory>();
  ServableSignature signature_;
  std::map<uint64_t, WorkerLink*> links_;
};

TEST_F(ExtraRouting, StagesAreReadFromTheDescription) {
  EXPECT_TRUE(signature_.has_models);
  EXPECT_FALSE(signature_.methods[0].has_python);
  EXPECT_TRUE(signature_.methods[0].has_model);
  EXPECT_TRUE(signature_.methods[1].has_python && signature_.methods[1].has_model);
  EXPECT_TRUE(signature_.methods[2].has_python);
  EXPECT_FALSE(signature_.methods[2].has_model);
}

TEST_F(ExtraRouting, MethodsWithPythonGoToAllAndModelsAloneToDevices) {
  Add(1, false);
  Add(2, true);
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(Submit("model").ok());
  }
  EXPECT_EQ(With(1), 4u);
  EXPECT_EQ(With(2), 0u);
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(Submit(i % 2 == 0 ? "mixed" : "python").ok());  // the least busy first
  }
  EXPECT_EQ(With(1), 5u);
  EXPECT_EQ(With(2), 5u);
}

TEST_F(ExtraRouting, WithoutADeviceWorkerOnlyPythonRuns) {
  Add(1, false);
  Add(2, true);
  ASSERT_TRUE(Submit("mixed").ok());
  dispatcher_.RemoveWorker(1, "it died");
  // What the device worker had needs another device worker.
  EXPECT_EQ(sink_.errors, std::vector<ErrorKind>{ErrorKind::kWorkerUnavailable});
  for (const char* method : {"model", "mixed"}) {
    const Status status = Submit(method);
    EXPECT_EQ(status.kind(), ErrorKind::kServableUnavailable);
    EXPECT_NE(status.message().find("servable is not available"), std::string::npos) << status.message();
  }
  EXPECT_TRUE(Submit("python").ok());
  EXPECT_EQ(With(2), 1u);
  Add(3, false);
  EXPECT_TRUE(Submit("model").ok());
  EXPECT_EQ(With(3), 1u);
}

TEST_F(ExtraRouting, ADeadExtraWorkersRequestsGoToOthers) {
  Add(1, false);
  Add(2, true);
  ASSERT_TRUE(Submit("mixed").ok());
  ASSERT_TRUE(Submit("mixed").ok());
  ASSERT_EQ(With(2), 1u);
  dispatcher_.RemoveWorker(2, "it died");
  EXPECT_EQ(With(1), 2u);
  EXPECT_TRUE(sink_.errors.empty());
}

}  // namespace
}  // namespace msserving
