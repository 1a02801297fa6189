// An agent process's end of the socket to the launcher that has started it: the order, with the decryption key, comes
// through it; what the launcher is to know goes back; and its end is the end of the process.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "base/error.h"
#include "base/secret.h"
#include "base/unique_fd.h"

namespace msserving {

// The launcher sends: the order's length (4 bytes, little endian), the key's length (1 byte, 0: no key), the order, the
// key. Afterwards nothing but its end.
class AgentLink {
 public:
  static constexpr size_t kMaxOrder = 1 << 20;
  static constexpr size_t kMaxKey = 32;

  // `socket`: a connected unix stream socket.
  explicit AgentLink(UniqueFd socket) : socket_(std::move(socket)) {}
  ~AgentLink();
  AgentLink(const AgentLink&) = delete;

  // Blocks until the order is there. The key goes from the socket into memory of its own and is wiped on the way;
  // *key stays null without one. kCancelled: the launcher has gone.
  Status ReceiveOrder(std::string* order, std::shared_ptr<Secret>* key);

  // After ReceiveOrder(), once: from now on the process, with its process group if it leads one, is killed when the
  // launcher has gone. The thread that sees to it takes no lock and knows nothing of Python.
  Status Follow();

  // Any thread, one at a time. kCancelled: the launcher has gone.
  Status Send(std::string_view text);

 private:
  Status ReadExactly(void* memory, size_t bytes);

  UniqueFd socket_;
  UniqueFd stop_;
  std::thread thread_;
};

}  // namespace msserving
