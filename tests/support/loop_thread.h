// An event loop on a thread of its own, and a listening socket on a free port, for tests of servers.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <functional>
#include <future>
#include <thread>
#include <vector>

#include "net/event_loop.h"
#include "net/listen.h"

namespace msserving {

class LoopThread {
 public:
  LoopThread() : thread_([this] { loop_.Run(); }) {}
  ~LoopThread() {
    loop_.Stop();
    thread_.join();
  }

  EventLoop& loop() { return loop_; }

  // Runs the function on the loop's thread and waits for its end.
  void Do(const std::function<void()>& function) {
    std::promise<void> done;
    loop_.Post([&] {
      function();
      done.set_value();
    });
    done.get_future().wait();
  }

 private:
  EventLoop loop_;
  std::thread thread_;
};

inline UniqueFd ListenAnywhere(int* port) {
  std::vector<UniqueFd> sockets;
  const Status status = Listen({"127.0.0.1", 0, ""}, 1, &sockets);
  EXPECT_TRUE(status.ok()) << status.message();
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  getsockname(sockets.at(0).get(), reinterpret_cast<sockaddr*>(&address), &size);
  *port = ntohs(address.sin_port);
  return std::move(sockets[0]);
}

}  // namespace msserving
