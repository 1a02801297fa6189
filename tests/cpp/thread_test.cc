#include "base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

namespace msserving {
namespace {

bool IsBlocked(int signal) {
  sigset_t blocked;
  sigemptyset(&blocked);
  pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  return sigismember(&blocked, signal) == 1;
}

TEST(StartThreadTest, TheThreadHasItsNameAndGetsNoSignals) {
  char name[16] = "";
  bool blocked = false;
  StartThread("fifteen-letters", [&] {
    pthread_getname_np(pthread_self(), name, sizeof(name));
    blocked = IsBlocked(SIGINT) && IsBlocked(SIGTERM) && IsBlocked(SIGUSR1);
  }).join();
  EXPECT_STREQ(name, "fifteen-letters");
  EXPECT_TRUE(blocked);
}

TEST(StartThreadTest, TheCallersSignalsAreAsBefore) {
  sigset_t one;
  sigset_t before;
  sigemptyset(&one);
  sigaddset(&one, SIGUSR1);
  pthread_sigmask(SIG_SETMASK, &one, &before);
  StartThread("quick", [] {}).join();
  EXPECT_TRUE(IsBlocked(SIGUSR1));
  EXPECT_FALSE(IsBlocked(SIGINT));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace
}  // namespace msserving
