// Taking connections while the process has no descriptor left.
#include "net/acceptor.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "../support/loop_thread.h"
#include "../support/loopback.h"
#include "base/clock.h"

namespace {

bool no_descriptor_is_left = false;

}  // namespace

// Instead of the C library's. A real limit would also be one for sanitizers, which open pipes to look at memory.
extern "C" int accept4(int fd, sockaddr* peer, socklen_t* size, int flags) {
  if (no_descriptor_is_left) {
    errno = EMFILE;
    return -1;
  }
  return static_cast<int>(syscall(SYS_accept4, fd, peer, size, flags));
}

namespace msserving {
namespace {

// While this lives.
class NoDescriptors {
 public:
  NoDescriptors() { no_descriptor_is_left = true; }
  ~NoDescriptors() { no_descriptor_is_left = false; }
};

class AcceptorTest : public ::testing::Test {
 protected:
  AcceptorTest() {
    int port = 0;
    UniqueFd listener = ListenAnywhere(&port);
    client_.Reset(ConnectTo(port));
    EXPECT_TRUE(client_);
    pollfd waiting{listener.get(), POLLIN, 0};
    EXPECT_EQ(poll(&waiting, 1, 60'000), 1);  // it is in the backlog now
    acceptor_ = std::make_unique<Acceptor>(&loop_, std::move(listener),
                                           [this](UniqueFd fd) { accepted_.push_back(std::move(fd)); });
  }

  // One wake-up.
  void RunOnce() {
    loop_.Post([this] { loop_.Stop(); });
    loop_.Run();
  }

  FakeClock clock_;
  EventLoop loop_{clock_};
  UniqueFd client_;
  std::vector<UniqueFd> accepted_;
  std::unique_ptr<Acceptor> acceptor_;
};

TEST_F(AcceptorTest, OutOfDescriptors_TakenAMomentAfterThereAreSome) {
  {
    const NoDescriptors none;
    RunOnce();
    EXPECT_TRUE(accepted_.empty());
  }
  RunOnce();
  EXPECT_TRUE(accepted_.empty()) << "it waits a moment";
  clock_.Advance(kNanosPerSecond);
  RunOnce();  // the moment is over
  RunOnce();
  EXPECT_EQ(accepted_.size(), 1u);
}

TEST_F(AcceptorTest, StoppedWhileOutOfDescriptors_NothingIsLeftToHappen) {
  {
    const NoDescriptors none;
    RunOnce();
    acceptor_->Stop();
  }
  clock_.Advance(kNanosPerSecond);
  RunOnce();
  acceptor_.reset();
  clock_.Advance(kNanosPerSecond);
  RunOnce();
  EXPECT_TRUE(accepted_.empty());
}

TEST_F(AcceptorTest, StoppedOnceThereAreDescriptors_TheBacklogIsTaken) {
  {
    const NoDescriptors none;
    RunOnce();
  }
  acceptor_->Stop();
  EXPECT_EQ(accepted_.size(), 1u);
  acceptor_.reset();
  clock_.Advance(kNanosPerSecond);
  RunOnce();
}

}  // namespace
}  // namespace msserving
