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

constexpr size_t Aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

size_t BoardShape::SlotStride() const { return sizeof(BoardSlot) + Aligned(max_outputs * sizeof(BoardTensor)); }
size_t BoardShape::SlotsAt() const {
  return (sizeof(BoardOrder) + Aligned(max_inputs * sizeof(BoardTensor)) + kPage - 1) / kPage * kPage;
}

Status LocalBoard::Open(SharedMemory memory, const BoardShape& shape, LocalBoard* board) {
  if (shape.max_inputs > kMaxTensors || shape.max_outputs > kMaxTensors || memory.size() < shape.Bytes()) {
    return Status(ErrorKind::kInternal, "the memory that local ranks share is too small");
  }
  board->memory_ = std::move(memory);
  board->shape_ = shape;
  return Status::Ok();
}

BoardSlot& LocalBoard::slot(uint32_t index) const {
  return *reinterpret_cast<BoardSlot*>(memory_.base() + shape_.SlotsAt() + index * shape_.SlotStride());
}

BoardTensor* LocalBoard::outputs(uint32_t slot_index) const {
  return reinterpret_cast<BoardTensor*>(reinterpret_cast<uint8_t*>(&slot(slot_index)) + sizeof(BoardSlot));
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

Status SendMemory(int socket, int fd) { return SendControl(socket, kMemoryMessage, "", {fd}); }

Status TensorWindow::Follow(int socket, uint64_t generation) {
  while (generation_ < generation) {
    ControlMessage message;
    if (Status status = ReceiveControl(socket, &message); !status.ok()) {
      return status;
    }
    if (message.kind != kMemoryMessage || message.fds.size() != 1) {
      return Status(ErrorKind::kInternal, "a message other than memory came through a local rank's socket");
    }
    SharedMemory mapped;
    if (Status status = SharedMemory::Map(std::move(message.fds[0]), &mapped); !status.ok()) {
      return status;
    }
    memory_ = std::move(mapped);
    ++generation_;
  }
  return generation_ == generation ? Status::Ok()
                                   : Status(ErrorKind::kInternal, "memory of a generation that has passed is named");
}

bool TensorWindow::Take(const BoardTensor& described, MsServingTensor* tensor) const {
  const BoardTensor copy = described;
  std::atomic_signal_fence(std::memory_order_seq_cst);  // read once: the other side may write meanwhile
  tensor->bytes = copy.bytes;
  tensor->dtype = copy.dtype;
  tensor->rank = copy.rank;
  if (copy.rank < 0 || copy.rank > kMaxRank) {
    return false;
  }
  std::copy_n(copy.dims, copy.rank, tensor->dims);
  if (!IsWhole(*tensor) || copy.offset % 64 != 0 || copy.offset > memory_.size() ||
      copy.bytes > memory_.size() - copy.offset) {
    return false;
  }
  tensor->data = memory_.base() + copy.offset;
  return true;
}

}  // namespace msserving
