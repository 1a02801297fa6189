// Connecting to somebody else's address.
#pragma once

#include <cstdint>

#include "base/error.h"
#include "base/unique_fd.h"
#include "net/listen.h"

namespace msserving {

// Tries what the host's name stands for one after the other, each for what is left of `timeout_ns`, and blocks
// meanwhile (looking the name up takes what it takes). The socket is non-blocking, close-on-exec and, for TCP, without
// Nagle's delay. Errors are those of the last try.
Status Dial(const Address& address, int64_t timeout_ns, UniqueFd* socket);

}  // namespace msserving
