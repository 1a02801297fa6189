#include "distributed/local_greeting.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstring>

namespace msserving {
namespace {

// A message of a greeting, with room for one descriptor.
struct Parcel {
  explicit Parcel(LocalGreeting* greeting) : piece{greeting, sizeof(*greeting)} {
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = ancillary;
    header.msg_controllen = sizeof(ancillary);
  }
  Parcel(const Parcel&) = delete;
  Parcel& operator=(const Parcel&) = delete;

  iovec piece;
  alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
};

}  // namespace

bool SendGreeting(int socket, const LocalGreeting& greeting, int bell) {
  LocalGreeting copy = greeting;
  Parcel parcel(&copy);
  cmsghdr* item = CMSG_FIRSTHDR(&parcel.header);
  item->cmsg_level = SOL_SOCKET;
  item->cmsg_type = SCM_RIGHTS;
  item->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(item), &bell, sizeof(bell));
  return sendmsg(socket, &parcel.header, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof(greeting));
}

ssize_t ReceiveGreeting(int socket, LocalGreeting* greeting, UniqueFd* bell) {
  Parcel parcel(greeting);
  const ssize_t got = recvmsg(socket, &parcel.header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  const cmsghdr* item = got > 0 ? CMSG_FIRSTHDR(&parcel.header) : nullptr;
  if (item != nullptr && item->cmsg_level == SOL_SOCKET && item->cmsg_type == SCM_RIGHTS &&
      item->cmsg_len == CMSG_LEN(sizeof(int))) {
    int received = -1;
    std::memcpy(&received, CMSG_DATA(item), sizeof(received));
    bell->Reset(received);
  }
  return got;
}

}  // namespace msserving
