// The worker's side of a channel, and its control socket.
#include "worker/channel.h"

#include <gtest/gtest.h>

#include "support/server_side.h"
#include "tensor/control_socket.h"
#include "worker/executor.h"
#include "worker/server_connection.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

TEST(WorkerChannel, GivesRequestsInOrder) {
  ServerSide server;
  auto channel = server.MakeWorkerChannel();
  const uint64_t first = server.Queue(0, 1, {Floats({2}, {1, 2})});
  const uint64_t second = server.Queue(3, 1, {Floats({1}, {5}), Floats({1}, {6})});
  RequestRecord* record = nullptr;
  ASSERT_TRUE(channel->HasRequests());
  ASSERT_TRUE(channel->Receive(&record));
  EXPECT_EQ(record->request, first);
  ASSERT_TRUE(channel->Receive(&record));
  EXPECT_EQ(record->request, second);
  EXPECT_EQ(record->method, 3U);
  EXPECT_EQ(record->instances, 2U);
  EXPECT_FALSE(channel->Receive(&record));
  EXPECT_FALSE(channel->broken());
}

TEST(WorkerChannel, NonsenseBreaksIt) {
  for (const RingEntry entry : {MakeEntry(1, 64, 1ULL << 40), MakeEntry(1, 63, 128), MakeEntry(1, 1ULL << 40, 128)}) {
    ServerSide server;
    auto channel = server.MakeWorkerChannel();
    server.requests().Push(entry);
    RequestRecord* record = nullptr;
    EXPECT_FALSE(channel->Receive(&record));
    EXPECT_TRUE(channel->broken());
  }
}

TEST(WorkerChannel, DrainsReleasesBeforeItSaysFull) {
  ServerSide server(1 << 20, 1 << 20);
  auto channel = server.MakeWorkerChannel();
  std::vector<uint64_t> offsets;
  while (true) {
    const uint64_t offset = channel->Allocate(100'000);
    if (offset == Channel::kNone) {
      break;
    }
    offsets.push_back(offset);
  }
  ASSERT_GE(offsets.size(), 8U);
  EXPECT_EQ(channel->Allocate(100'000), Channel::kNone);
  server.releases().Push(MakeEntry(0, offsets[0], 0));
  EXPECT_EQ(channel->Allocate(100'000), offsets[0]);
}

TEST(WorkerChannel, ReleaseOfWhatIsNotInUseBreaksIt) {
  ServerSide server;
  auto channel = server.MakeWorkerChannel();
  server.releases().Push(MakeEntry(0, 64, 0));
  channel->TakeReleases();
  EXPECT_TRUE(channel->broken());
}

TEST(WorkerChannel, FullReplyRingKeepsEntriesAndTheirOrder) {
  ServerSide server;
  auto channel = server.MakeWorkerChannel();
  constexpr uint64_t kEntries = kReplyRingCapacity + 100;
  for (uint64_t i = 0; i < kEntries; ++i) {
    channel->Send(i, i * 64, 64);
  }
  EXPECT_TRUE(channel->unsent());
  RingEntry entry;
  for (uint64_t i = 0; i < kEntries; ++i) {
    if (!server.replies().Pop(&entry)) {
      channel->PushUnsent();
      ASSERT_TRUE(server.replies().Pop(&entry));
    }
    ASSERT_EQ(entry.words[0], i);
  }
  EXPECT_FALSE(channel->unsent());
  EXPECT_FALSE(server.replies().Pop(&entry));
}

TEST(WorkerChannel, DoorbellIsDueOncePerBatchAndOnlyIfTheLoopSleeps) {
  ServerSide server;
  auto channel = server.MakeWorkerChannel();
  channel->Send(1, 64, 64);
  EXPECT_FALSE(channel->DoorbellDue());
  server.replies().ArmDoorbell();
  EXPECT_FALSE(channel->DoorbellDue());  // nothing new was sent
  channel->Send(2, 128, 64);
  channel->Send(3, 192, 64);
  EXPECT_TRUE(channel->DoorbellDue());
  EXPECT_FALSE(channel->DoorbellDue());
}

TEST(WorkerChannel, SmallControlMemoryIsRefused) {
  ServerSide server;
  SharedMemory small;
  Require(SharedMemory::Create("small", 4096, &small));
  Channel::Descriptors descriptors{UniqueFd(dup(small.fd())), UniqueFd(dup(server.replies_memory().fd())),
                                   UniqueFd(dup(server.requests_memory().fd())), UniqueFd(dup(server.loop_doorbell()))};
  std::unique_ptr<Channel> channel;
  EXPECT_FALSE(Channel::Open(std::move(descriptors), &channel).ok());
}

class ServerConnectionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    UniqueFd theirs;
    Require(MakeControlPair(&ours_, &theirs));
    connection_ = std::make_unique<ServerConnection>(std::move(theirs));
  }
  UniqueFd ours_;
  std::unique_ptr<ServerConnection> connection_;
};

TEST_F(ServerConnectionTest, StartBringsConfigurationAndChannels) {
  ServerSide first;
  ServerSide second;
  std::vector<int> fds{first.worker_doorbell()};
  for (ServerSide* side : {&first, &second}) {
    fds.insert(fds.end(), {side->control().fd(), side->replies_memory().fd(), side->requests_memory().fd(),
                           side->loop_doorbell()});
  }
  Require(SendControl(ours_.get(), 'S', "{\"name\": 1}", fds));
  StartOrder order;
  const Status status = connection_->ReceiveStart(&order);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(order.configuration, "{\"name\": 1}");
  ASSERT_EQ(order.channels.size(), 2U);
  second.Queue(0, 1, {Floats({1}, {1})});
  EXPECT_FALSE(order.channels[0]->HasRequests());
  EXPECT_TRUE(order.channels[1]->HasRequests());
}

TEST_F(ServerConnectionTest, StartWithMissingDescriptorsIsRefused) {
  ServerSide server;
  Require(SendControl(ours_.get(), 'S', "{}", {server.worker_doorbell(), server.control().fd()}));
  StartOrder order;
  EXPECT_EQ(connection_->ReceiveStart(&order).kind(), ErrorKind::kInternal);
}

TEST_F(ServerConnectionTest, DeathOfTheServerIsCancelled) {
  ours_.Reset();
  StartOrder order;
  EXPECT_EQ(connection_->ReceiveStart(&order).kind(), ErrorKind::kCancelled);
  Executor executor;
  EXPECT_EQ(connection_->ReceiveEvent(&executor), ControlEvent::kServerGone);
}

TEST_F(ServerConnectionTest, StopAndReadyCross) {
  Require(SendControl(ours_.get(), 'X', ""));
  EXPECT_TRUE(connection_->SendReady("{}").ok());
  Executor executor;
  EXPECT_EQ(connection_->ReceiveEvent(&executor), ControlEvent::kStop);
  ControlMessage message;
  Require(ReceiveControl(ours_.get(), &message));
  EXPECT_EQ(message.kind, 'R');
  EXPECT_EQ(message.body, "{}");
}

}  // namespace
}  // namespace msserving
