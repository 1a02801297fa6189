#include "server/extra_workers.h"

#include <poll.h>

#include <string>

#include "tensor/control_socket.h"
#include "tensor/exchange.h"

namespace msserving {
namespace {

// The socket's buffer takes at least a message of the size that these have.
Status SendIfRead(int control, char kind, std::string_view body, const std::vector<int>& fds) {
  pollfd watched{control, POLLOUT, 0};
  if (poll(&watched, 1, 0) != 1 || (watched.revents & POLLOUT) == 0) {
    return Status(ErrorKind::kInternal, "a worker does not read its control socket");
  }
  return SendControl(control, kind, body, fds);
}

}  // namespace

Status ConnectWorkers(const WorkerEnd& device, const WorkerEnd& extra, const SharedMemory& rows,
                      std::string_view description, size_t reply_bytes) {
  SharedMemory control;
  SharedMemory replies;
  Status status = SharedMemory::Create("serving rings", ChannelLayout::kBytes, &control);
  if (status.ok()) {
    status = SharedMemory::Create("serving replies", reply_bytes, &replies);
  }
  if (status.ok()) {
    status = SendIfRead(device.control, 'E', std::to_string(extra.id),
                        {control.fd(), replies.fd(), rows.fd(), extra.doorbell});
  }
  if (!status.ok()) {
    return status;
  }
  std::string body = std::to_string(device.id);
  body.append("\n").append(description);
  return SendIfRead(extra.control, 'D', body, {control.fd(), replies.fd(), rows.fd(), device.doorbell});
}

void SendGone(int control, uint64_t id, uint8_t given_up) {
  (void)SendIfRead(control, 'G', std::to_string(id) + " " + std::to_string(given_up), {});
}

}  // namespace msserving
