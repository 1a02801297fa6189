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

// A device worker for an extra one, as a message brings it.
struct DeviceOrder {
  std::string description;  // JSON: what the device worker said of its models
  SharedMemory memory;      // for rows; the same one with every device worker
  std::shared_ptr<DeviceLink> link;
};

// One thread at a time.
class ServerConnection {
 public:
  explicit ServerConnection(UniqueFd socket) : socket_(std::move(socket)) {}

  // Blocks until the order has come. kCancelled: the server is gone, or told this worker to stop instead.
  Status ReceiveStart(StartOrder* order);
  // Of an extra worker before it runs: blocks until there is a device worker. kCancelled as above.
  Status ReceiveDevice(DeviceOrder* order);
  Status SendReady(std::string_view description);
  Status SendFailed(std::string_view text);
  // Reads one message; call when fd() is readable. Extra and device workers that come and go are told to `executor`.
  ControlEvent ReceiveEvent(Executor* executor);

  int fd() const { return socket_.get(); }

 private:
  UniqueFd socket_;
};

}  // namespace msserving
