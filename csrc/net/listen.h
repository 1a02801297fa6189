// Addresses as users write them, and the sockets for them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/unique_fd.h"

namespace msserving {

struct Address {
  std::string host;       // IPv4, IPv6 (in brackets when written) or a host name; empty for a unix socket
  int port = 0;           // 0 lets the kernel choose, for tests; ParseAddress never gives it
  std::string unix_path;  // empty for an internet address
};

// "ip:port" (the last colon splits) or "unix:path". Errors say what is wrong and what is allowed, with the documented
// tokens ("out of legal range [1 ~ 65535]" and so on). A unix path is refused unless allow_unix.
Status ParseAddress(std::string_view text, bool allow_unix, Address* address);

// `count` non-blocking listening sockets on one address: SO_REUSEPORT among themselves, but an address that some
// other socket listens on already is an error. For a unix path: one socket shared by all (dup), a stale socket file
// (nobody accepts on it) is replaced, a live one is an error; the directory must exist.
Status Listen(const Address& address, int count, std::vector<UniqueFd>* sockets);

}  // namespace msserving
