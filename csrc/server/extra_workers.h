// Extra workers run the Python stages of a servable version and leave its models to the device workers of that version.
// What is theirs in the server: channels between them, so that rows and results do not pass through the server.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "tensor/shared_memory.h"

namespace msserving {

// A worker process as the supervisor holds it. The descriptors stay the supervisor's.
struct WorkerEnd {
  uint64_t id;   // a new one for each process
  int control;   // socket
  int doorbell;  // eventfd
};

// Makes a channel (tensor/exchange.h) in which the extra worker plays the server, and gives each its end: messages 'E'
// and 'D' of tensor/control_socket.h. `rows`: the extra worker's memory for what it sends, the same for all of its
// channels. `description`: what the device worker said of its models. The server keeps nothing of the channel, so its
// memory goes with the two workers. Never blocks: a worker that does not read its socket gets an error.
Status ConnectWorkers(const WorkerEnd& device, const WorkerEnd& extra, const SharedMemory& rows,
                      std::string_view description, size_t reply_bytes);

// Tells a worker that the other end of one of its channels has died. One that does not read its socket is not told.
// `given_up`: if the other was ended because something took too long, that one's InstanceMark::running; else 0.
void SendGone(int control, uint64_t id, uint8_t given_up);

}  // namespace msserving
