#include "distributed/local_board.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "distributed/frame.h"
#include "tensor/control_socket.h"

namespace msserving {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kFirstArena = size_t{1} << 20;
constexpr char kMemoryMessage = 'M';
constexpr size_t kMostArrived = 64;  // an arena doubles each time

constexpr size_t Aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

size_t BoardShape::OrderStride() const { return sizeof(BoardOrder) + Aligned(max_inputs * sizeof(BoardTensor)); }
size_t BoardShape::SlotStride() const { return sizeof(BoardSlot) + Aligned(max_outputs * sizeof(BoardTensor)); }
size_t BoardShape::SlotsAt() const { return (sizeof(BoardHead) + runs * OrderStride() + kPage - 1) / kPage * kPage; }

Status LocalBoard::Open(SharedMemory memory, const BoardShape& shape, LocalBoard* board) {
  if (shape.runs < 1 || shape.runs > kMaxRunsOut || shape.max_inputs > kMaxTensors || shape.max_outputs > kMaxTensors ||
      memory.size() < shape.Bytes()) {
    return Status(ErrorKind::kInternal, "the memory that local ranks share is too small");
  }
  board->memory_ = std::move(memory);
  board->shape_ = shape;
  return Status::Ok();
}

BoardOrder& LocalBoard::order(uint32_t place) const {
  return *reinterpret_cast<BoardOrder*>(memory_.base() + sizeof(BoardHead) + place * shape_.OrderStride());
}

BoardTensor* LocalBoard::inputs(uint32_t place) const {
  return reinterpret_cast<BoardTensor*>(reinterpret_cast<uint8_t*>(&order(place)) + sizeof(BoardOrder));
}

BoardSlot& LocalBoard::slot(uint32_t place, uint32_t rank_slot) const {
  const size_t index = size_t{place} * shape_.slots + rank_slot;
  return *reinterpret_cast<BoardSlot*>(memory_.base() + shape_.SlotsAt() + index * shape_.SlotStride());
}

BoardTensor* LocalBoard::outputs(uint32_t place, uint32_t rank_slot) const {
  return reinterpret_cast<BoardTensor*>(reinterpret_cast<uint8_t*>(&slot(place, rank_slot)) + sizeof(BoardSlot));
}

Status TensorArena::Place(std::span<const MsServingTensor> tensors, BoardTensor* placed) {
  uint64_t at = 0;
  for (const MsServingTensor& tensor : tensors) {
    placed->offset = at;
    placed->bytes = tensor.bytes;
    placed->dtype = tensor.dtype;
    placed->rank = tensor.rank;
    std::copy_n(tensor.dims, tensor.rank, placed->dims);
    at += Aligned(tensor.bytes);
    ++placed;
  }
  if (at <= memory_.size()) {
    return Status::Ok();
  }
  SharedMemory larger;
  const size_t bytes = std::max({kFirstArena, at, std::min<uint64_t>(memory_.size() * 2, UINT64_C(4) << 30)});
  if (Status status = SharedMemory::Create(label_, bytes, &larger); !status.ok()) {
    return status;
  }
  memory_ = std::move(larger);
  ++generation_;
  return Status::Ok();
}

Status SendMemory(int socket, uint32_t place, int fd) {
  const char body = static_cast<char>(place);
  return SendControl(socket, kMemoryMessage, {&body, 1}, {fd});
}

Status TensorWindows::Follow(int socket, uint32_t place, uint64_t generation) {
  Window& window = windows_[place];
  while (window.generation < generation) {
    std::lock_guard lock(mutex_);
    if (window.arrived.empty()) {
      if (Status status = Receive(socket); !status.ok()) {
        return status;
      }
      continue;
    }
    window.memory = std::move(window.arrived.front());
    window.arrived.pop_front();
    ++window.generation;
  }
  return window.generation == generation
             ? Status::Ok()
             : Status(ErrorKind::kInternal, "memory of a generation that has passed is named");
}

// One message. Under the lock. The memory that a place has in use is not touched.
Status TensorWindows::Receive(int socket) {
  ControlMessage message;
  if (Status status = ReceiveControl(socket, &message); !status.ok()) {
    return status;
  }
  const size_t place = message.body.size() == 1 ? static_cast<uint8_t>(message.body[0]) : windows_.size();
  if (message.kind != kMemoryMessage || message.fds.size() != 1 || place >= windows_.size()) {
    return Status(ErrorKind::kInternal, "a message other than memory came through a local rank's socket");
  }
  Window& window = windows_[place];
  if (window.arrived.size() >= kMostArrived) {
    return Status(ErrorKind::kInternal, "more memory came through a local rank's socket than a run can need");
  }
  SharedMemory mapped;
  if (Status status = SharedMemory::Map(std::move(message.fds[0]), &mapped); !status.ok()) {
    return status;
  }
  window.arrived.push_back(std::move(mapped));
  return Status::Ok();
}

bool TensorWindows::Take(uint32_t place, const BoardTensor& described, MsServingTensor* tensor) const {
  const SharedMemory& memory = windows_[place].memory;
  const BoardTensor copy = described;
  std::atomic_signal_fence(std::memory_order_seq_cst);  // read once: the other side may write meanwhile
  tensor->bytes = copy.bytes;
  tensor->dtype = copy.dtype;
  tensor->rank = copy.rank;
  if (copy.rank < 0 || copy.rank > kMaxRank) {
    return false;
  }
  std::copy_n(copy.dims, copy.rank, tensor->dims);
  if (!IsWhole(*tensor) || copy.offset % 64 != 0 || copy.offset > memory.size() ||
      copy.bytes > memory.size() - copy.offset) {
    return false;
  }
  tensor->data = memory.base() + copy.offset;
  return true;
}

}  // namespace msserving
