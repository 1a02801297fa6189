// What gRPC health checks say of a front-end that serves, and of one that drains. How a front-end starts.
#include "server/front_end.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <future>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../support/loop_thread.h"
#include "h2_test_client.h"
#include "protocol/health_service.h"
#include "wire_builder.h"

namespace msserving {
namespace {

using testing::Frame;
using testing::H2Client;
using testing::Headers;
using testing::Response;

const std::string kServing("\x08\x01", 2);
const std::string kNotServing("\x08\x02", 2);

class FrontEndTest : public ::testing::Test {
 protected:
  FrontEndTest() : front_end_({1, 8 << 20, 8 << 20}) {
    EXPECT_TRUE(front_end_.Start().ok());
    ListenAnywhere(&port_);  // and closes it again
    const Status status = front_end_.StartGrpc("127.0.0.1:" + std::to_string(port_), {}, nullptr);
    EXPECT_TRUE(status.ok()) << status.message();
    WorkerAttachment attachment;
    EXPECT_TRUE(front_end_.MakeAttachment(&slabs_, &attachment).ok());
    front_end_.AddWorker(1, {"add", 2, {{"sum", {"x"}, {"y"}}}}, std::move(attachment));
    front_end_.JoinWorker(1);
    front_end_.SetReady(true);
    AwaitLoop();
  }

  // Until the loop has done what it was asked to.
  void AwaitLoop() {
    std::promise<void> done;
    front_end_.Barrier([&] { done.set_value(); });
    done.get_future().wait();
  }

  static std::string Named(std::string_view name) { return Frame(Message().Bytes(1, name).text()); }
  static int32_t Check(H2Client* client, std::string_view name) {
    return client->Start(H2Client::Grpc(std::string(HealthService::kCheckPath)), Named(name));
  }
  static std::string Answer(H2Client* client, int32_t id) {
    const Response& response = client->Wait(id);
    return response.status() == "0" ? response.message() : "status " + response.status();
  }
  static int32_t Watch(H2Client* client, std::string_view name) {
    return client->Start(H2Client::Grpc(std::string(HealthService::kWatchPath)), Named(name));
  }

  std::vector<std::shared_ptr<SharedMemory>> slabs_;
  FrontEnd front_end_;
  int port_ = 0;
};

TEST_F(FrontEndTest, HealthOfADrainingServer) {
  H2Client client(port_);
  for (const char* name : {"", "add", "add/2"}) {
    EXPECT_EQ(Answer(&client, Check(&client, name)), kServing) << name;
  }
  const int32_t all = Watch(&client, "");
  const int32_t add = Watch(&client, "add");
  for (const int32_t id : {all, add}) {
    ASSERT_TRUE(client.RunUntil([&] { return client.response(id).data == Frame(kServing); }));
  }
  // Probes that are on their way when the end begins: they have been taken, so they are answered.
  std::map<int32_t, std::string> probes;
  for (const char* name : {"", "add", "add/2"}) {
    const Headers headers = H2Client::Grpc(std::string(HealthService::kCheckPath));
    probes[client.Start(headers, "", false)] = Named(name);
  }
  EXPECT_EQ(Answer(&client, Check(&client, "")), kServing);
  front_end_.Drain();
  for (const auto& [id, message] : probes) {
    client.Continue(id, message, true);
    EXPECT_EQ(Answer(&client, id), kNotServing);
  }
  for (const int32_t id : {all, add}) {
    EXPECT_EQ(client.Wait(id).status(), "14");
    EXPECT_EQ(client.response(id).data, Frame(kServing) + Frame(kNotServing));
  }
  EXPECT_FALSE(testing::Connects(port_)) << "new probes find no one";
  EXPECT_TRUE(client.RunUntil([&] { return front_end_.Calls() == 0; })) << "watchers hold up no end";
}

TEST_F(FrontEndTest, HealthFollowsTheWorkers) {
  H2Client client(port_);
  EXPECT_EQ(Answer(&client, Check(&client, "add/2")), kServing);
  front_end_.RemoveWorker(1, "gone");
  AwaitLoop();
  EXPECT_EQ(Answer(&client, Check(&client, "add/2")), kNotServing) << "known, without a worker";
  EXPECT_EQ(Answer(&client, Check(&client, "")), kServing) << "the supervisor's to say";
  front_end_.SetReady(false);
  EXPECT_EQ(Answer(&client, Check(&client, "")), kNotServing);
  front_end_.DropVersion("add", 2);
  AwaitLoop();
  EXPECT_EQ(Answer(&client, Check(&client, "add/2")), "status 5");
}

std::set<int> OpenDescriptors() {
  std::set<int> open;
  for (int fd = 0; fd < 1024; ++fd) {
    if (fcntl(fd, F_GETFD) >= 0) {
      open.insert(fd);
    }
  }
  return open;
}

TEST(FrontEndStartTest, DescriptorsAreClosedInProgramsThatAreStarted) {
  const std::set<int> before = OpenDescriptors();
  FrontEnd front_end(FrontEndOptions{.io_threads = 2});
  ASSERT_TRUE(front_end.Start().ok());
  const std::set<int> after = OpenDescriptors();
  EXPECT_GT(after.size(), before.size());
  for (const int fd : after) {
    if (!before.contains(fd)) {
      EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0) << fd;
    }
  }
}

// A stack that no address space has room for stands for a limit of threads.
class NoThreads {
 public:
  NoThreads() {
    EXPECT_EQ(pthread_getattr_default_np(&before_), 0);
    pthread_attr_t huge;
    pthread_attr_init(&huge);
    EXPECT_EQ(pthread_attr_setstacksize(&huge, size_t{1} << 60), 0);
    EXPECT_EQ(pthread_setattr_default_np(&huge), 0);
    pthread_attr_destroy(&huge);
  }
  ~NoThreads() {
    EXPECT_EQ(pthread_setattr_default_np(&before_), 0);
    pthread_attr_destroy(&before_);
  }

 private:
  pthread_attr_t before_;
};

TEST(FrontEndStartTest, NoThreadToBeHad_SaysWhatToRaiseAndCanBeStopped) {
  FrontEnd front_end(FrontEndOptions{.io_threads = 2});
  {
    const NoThreads none;
    const Status status = front_end.Start();
    EXPECT_EQ(status.kind(), ErrorKind::kInternal);
    EXPECT_NE(status.message().find("pids.max"), std::string::npos) << status.message();
  }
  front_end.Drain();
  EXPECT_EQ(front_end.Calls(), 0u);
  front_end.Stop();
}

}  // namespace
}  // namespace msserving
