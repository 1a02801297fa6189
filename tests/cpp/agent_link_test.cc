#include "worker/agent_link.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <thread>

namespace msserving {
namespace {

struct Ends {
  Ends() {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    launcher.Reset(fds[0]);
    agent.Reset(fds[1]);
  }
  void Send(const std::string& bytes) const {
    ASSERT_EQ(send(launcher.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  UniqueFd launcher;
  UniqueFd agent;
};

std::string Head(uint32_t order_bytes, uint8_t key_bytes) {
  std::string head;
  for (int i = 0; i < 4; ++i) {
    head.push_back(static_cast<char>(order_bytes >> (8 * i)));
  }
  head.push_back(static_cast<char>(key_bytes));
  return head;
}

TEST(AgentLink, OrderAndKeyArriveInPieces) {
  Ends ends;
  const std::string key = "0123456789abcdef";
  const std::string all = Head(7, 16) + "{\"a\":1}" + key;
  AgentLink link(std::move(ends.agent));
  std::thread launcher([&] {
    for (const char byte : all) {
      ends.Send(std::string(1, byte));
    }
  });
  std::string order;
  std::shared_ptr<Secret> secret;
  ASSERT_TRUE(link.ReceiveOrder(&order, &secret).ok());
  launcher.join();
  EXPECT_EQ(order, "{\"a\":1}");
  ASSERT_NE(secret, nullptr);
  EXPECT_EQ(secret->text(), key);
}

TEST(AgentLink, WithoutAKeyThereIsNone) {
  Ends ends;
  ends.Send(Head(2, 0) + "{}");
  AgentLink link(std::move(ends.agent));
  std::string order;
  std::shared_ptr<Secret> secret;
  ASSERT_TRUE(link.ReceiveOrder(&order, &secret).ok());
  EXPECT_EQ(order, "{}");
  EXPECT_EQ(secret, nullptr);
}

TEST(AgentLink, ImpossibleSizesAreRefusedBeforeMemoryIsTaken) {
  for (const std::string& head : {Head(AgentLink::kMaxOrder + 1, 0), Head(UINT32_MAX, 0), Head(2, 33)}) {
    Ends ends;
    ends.Send(head);
    AgentLink link(std::move(ends.agent));
    std::string order;
    std::shared_ptr<Secret> secret;
    EXPECT_EQ(link.ReceiveOrder(&order, &secret).kind(), ErrorKind::kInternal);
    EXPECT_LT(order.capacity(), 64u);
  }
}

TEST(AgentLink, AnEndInTheMiddleIsTheLaunchersEnd) {
  const std::string whole = Head(4, 16) + "{}{}" + std::string(16, 'k');
  for (const size_t sent : {size_t{0}, size_t{3}, size_t{7}, whole.size() - 1}) {
    Ends ends;
    ends.Send(whole.substr(0, sent));
    ends.launcher.Reset();
    AgentLink link(std::move(ends.agent));
    std::string order;
    std::shared_ptr<Secret> secret;
    EXPECT_EQ(link.ReceiveOrder(&order, &secret).kind(), ErrorKind::kCancelled);
    EXPECT_EQ(secret, nullptr);
  }
}

TEST(AgentLink, TellsItsLauncherUntilThatHasGone) {
  Ends ends;
  AgentLink link(std::move(ends.agent));
  ASSERT_TRUE(link.Send("registered\n").ok());
  char said[16] = {};
  EXPECT_EQ(recv(ends.launcher.get(), said, sizeof said, 0), 11);
  EXPECT_STREQ(said, "registered\n");
  ends.launcher.Reset();
  EXPECT_EQ(link.Send("registered\n").kind(), ErrorKind::kCancelled);
}

TEST(AgentLink, TheProcessIsKilledWhenItsLauncherHasGone) {
  Ends ends;
  const pid_t child = fork();
  if (child == 0) {
    ends.launcher.Reset();
    AgentLink link(std::move(ends.agent));
    if (!link.Follow().ok() || !link.Send("f").ok()) {
      _exit(1);
    }
    while (true) {
      pause();
    }
  }
  ends.agent.Reset();
  char following = 0;
  EXPECT_EQ(recv(ends.launcher.get(), &following, 1, 0), 1);
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0);
  ends.launcher.Reset();
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
}

TEST(AgentLink, EndsItsThreadWithItself) {
  Ends ends;
  {
    AgentLink link(std::move(ends.agent));
    ASSERT_TRUE(link.Follow().ok());
  }
  char byte;
  EXPECT_EQ(recv(ends.launcher.get(), &byte, 1, 0), 0);  // and this process lives
}

}  // namespace
}  // namespace msserving
