// The worker's end of the control socket.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/secret.h"
#include "base/unique_fd.h"
#include "worker/channel.h"
#include "worker/executor.h"

namespace msserving {

// What the server's start message brings.
struct StartOrder {
  std::shared_ptr<Secret> key;  // null: no model is encrypted
  std::string configuration;    // JSON, not looked into here
  UniqueFd doorbell;
  std::vector<std::unique_ptr<Channel>> channels;  // one for each event loop of the server
};

// One thread at a time.
class ServerConnection {
 public:
  explicit ServerConnection(UniqueFd socket) : socket_(std::move(socket)) {}

  // Blocks until the order has come. kCancelled: the server is gone, or told this worker to stop instead.
  Status ReceiveStart(StartOrder* order);
  Status SendReady(std::string_view description);
  Status SendFailed(std::string_view text);
  // Reads one message; call when fd() is readable.
  ControlEvent ReceiveEvent();

  int fd() const { return socket_.get(); }

 private:
  UniqueFd socket_;
};

}  // namespace msserving
