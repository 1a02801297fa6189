// The unix socket between the server and one worker: rare messages, descriptors, and, by its end, the news of a death.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/unique_fd.h"

namespace msserving {

// One message: a kind, a body of at most kMaxControlBody bytes, and descriptors.
//   server -> worker   'K' the key of the servable's encrypted models; before 'S', if there is one
//                      'S' start: JSON configuration; descriptors: the worker's doorbell, then for each event loop
//                      control memory, reply slab, request slab, the loop's doorbell
//                      'X' stop: answer what was accepted, then exit
//                      'E' to a device worker: an extra worker has come; body: its name, a number; descriptors:
//                      control memory, reply slab, the extra worker's memory for rows, its doorbell
//                      'D' to an extra worker: a device worker has come; body: its name, a line feed, what it said
//                      with 'R'; descriptors: control memory, reply slab, memory for rows, its doorbell
//                      'G' that extra or device worker has gone; body: its name, a space, and if it was ended because
//                      something took too long, the InstanceMark::running of that, else 0
//   worker -> server   'R' ready: JSON signature    'F' failed to start: text for the user
struct ControlMessage {
  char kind = 0;
  std::string body;
  std::vector<UniqueFd> fds;
};

inline constexpr size_t kMaxControlBody = size_t{4} << 20;
inline constexpr size_t kMaxControlFds = 200;

// A connected pair (SOCK_STREAM, close-on-exec).
Status MakeControlPair(UniqueFd* ours, UniqueFd* theirs);

// Blocking until all is sent. Any thread, one at a time.
Status SendControl(int socket, char kind, std::string_view body, const std::vector<int>& fds = {});

// Blocking until one message has come. kCancelled: the other side is gone.
Status ReceiveControl(int socket, ControlMessage* message);

}  // namespace msserving
