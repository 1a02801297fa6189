// What the worker and the ranks on its machine share: one memfd with the order of the run under way, and a slot for
// each of these ranks to answer in.
//
// The worker writes inputs into a second memfd that all of them map, fills in the order, publishes it by its number
// and rings each rank's eventfd. A rank runs, writes its outputs (if they are wanted) into a memfd of its own, fills
// in its slot and counts `left` down; who brings it to zero rings the worker, and so does who fails. Memory that has
// become too small is replaced by a larger one with the next generation, whose descriptor goes through the rank's
// socket before it is named. Ranks run users' models: what they write is copied and checked before it is used.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/unique_fd.h"
#include "session/session.h"
#include "tensor/shared_memory.h"

namespace msserving {

struct BoardTensor {
  uint64_t offset;  // in the memory that it lies in; of outputs that are not handed over: 0
  uint64_t bytes;
  int64_t dims[kMaxRank];
  int32_t dtype;
  int32_t rank;
};

struct alignas(64) BoardOrder {
  std::atomic<uint64_t> seq;   // of the run under way; everything else is written before it
  std::atomic<uint32_t> left;  // ranks, of all machines, that have not answered
  uint32_t subgraph;
  uint32_t answering_rank;  // whose outputs are wanted
  uint32_t inputs;
  uint64_t input_generation;
};

struct alignas(64) BoardSlot {
  static constexpr size_t kTextBytes = 4096;
  std::atomic<uint64_t> seq;  // of the run that is answered here; everything else is written before it
  uint32_t failed;
  uint32_t outputs;
  uint64_t output_generation;
  uint32_t text_bytes;
  char text[kTextBytes];
};

// Where things lie. Plain numbers, which the worker tells each local rank.
struct BoardShape {
  uint32_t slots = 0;
  uint32_t max_inputs = 0;
  uint32_t max_outputs = 0;

  size_t SlotStride() const;
  size_t SlotsAt() const;
  size_t Bytes() const { return SlotsAt() + slots * SlotStride(); }
};

// A view of the board; any number of them, in any process.
class LocalBoard {
 public:
  // Takes the memory if it is large enough for the shape.
  static Status Open(SharedMemory memory, const BoardShape& shape, LocalBoard* board);

  BoardOrder& order() const { return *reinterpret_cast<BoardOrder*>(memory_.base()); }
  BoardTensor* inputs() const { return reinterpret_cast<BoardTensor*>(memory_.base() + sizeof(BoardOrder)); }
  BoardSlot& slot(uint32_t index) const;
  BoardTensor* outputs(uint32_t slot) const;
  const BoardShape& shape() const { return shape_; }
  int fd() const { return memory_.fd(); }

 private:
  SharedMemory memory_;
  BoardShape shape_;
};

// Tensors' bytes in shared memory that grows. One thread at a time.
class TensorArena {
 public:
  explicit TensorArena(const char* label) : label_(label) {}

  // Where a run's tensors will lie, one after the other from multiples of 64 on; a larger memory if they do not fit,
  // of the next generation. The descriptions are filled in, the bytes are not yet there.
  Status Place(std::span<const MsServingTensor> tensors, BoardTensor* placed);
  uint8_t* base() const { return memory_.base(); }
  int fd() const { return memory_.fd(); }
  uint64_t generation() const { return generation_; }

 private:
  const char* label_;
  SharedMemory memory_;
  uint64_t generation_ = 0;
};

// The other side of an arena. One thread at a time.
class TensorWindow {
 public:
  // Receives memories through the socket until it has the generation (at most the socket's time-out).
  Status Follow(int socket, uint64_t generation);
  // A tensor as the other side described it, copied and checked against itself and the memory.
  bool Take(const BoardTensor& described, MsServingTensor* tensor) const;

 private:
  SharedMemory memory_;
  uint64_t generation_ = 0;
};

// Sends an arena's memory to the windows at the other end of the socket.
Status SendMemory(int socket, int fd);

// The first thing that an agent says on the machine's own socket, with the eventfd that wakes it.
struct LocalGreeting {
  char token[32];
  uint32_t rank;
};

}  // namespace msserving
