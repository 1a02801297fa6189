// The first thing that an agent says on the machine's own socket, with the eventfd that wakes it.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "base/unique_fd.h"

namespace msserving {

struct LocalGreeting {
  char token[32];
  uint32_t rank;
};

// Whether all of it has left. Waits as long as the socket says.
bool SendGreeting(int socket, const LocalGreeting& greeting, int bell);

// What recvmsg has returned, with its errno; never waits. The bell is empty if none has come.
ssize_t ReceiveGreeting(int socket, LocalGreeting* greeting, UniqueFd* bell);

}  // namespace msserving
