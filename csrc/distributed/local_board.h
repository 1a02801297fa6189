// What the worker and the ranks on its machine share: one memfd with the orders of the runs that are out, and slots for
// each of these ranks to answer in.
//
// A run has a *place*: an order, a memory for its inputs, an answer and a memory for outputs of each rank, and an
// eventfd on which the worker waits for it. There is one place, or several if runs may overlap; a place has one run at
// a time. The worker writes inputs into the place's memfd, which all of them map, fills in the order, publishes it by
// its number and rings each rank's eventfd. A rank takes runs by their numbers, one after the other: it runs, writes
// its outputs (if they are wanted) into a memfd of its own, fills in its slot and counts `left` down; who brings it to
// zero rings the place, and so does who fails. Memory that has become too small is replaced by a larger one with the
// next generation, whose descriptor goes through the rank's socket before it is named. Ranks run users' models: what
// they write is copied and checked before it is used.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
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

// Places of a group, and so runs that are out over the ranks at a time.
inline constexpr uint32_t kMaxRunsOut = 32;

struct alignas(64) BoardHead {
  std::atomic<uint64_t> newest;  // number of the run that was ordered last; everything else is written before it
  uint8_t places[kMaxRunsOut];   // run n has places[n % runs] until all ranks have finished it
};

struct alignas(64) BoardOrder {
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
  uint32_t slots = 0;  // local ranks
  uint32_t runs = 1;   // places
  uint32_t max_inputs = 0;
  uint32_t max_outputs = 0;

  size_t OrderStride() const;
  size_t SlotStride() const;
  size_t SlotsAt() const;
  size_t Bytes() const { return SlotsAt() + size_t{runs} * slots * SlotStride(); }
};

// A view of the board; any number of them, in any process.
class LocalBoard {
 public:
  // Takes the memory if it is large enough for the shape.
  static Status Open(SharedMemory memory, const BoardShape& shape, LocalBoard* board);

  BoardHead& head() const { return *reinterpret_cast<BoardHead*>(memory_.base()); }
  BoardOrder& order(uint32_t place) const;
  BoardTensor* inputs(uint32_t place) const;
  BoardSlot& slot(uint32_t place, uint32_t rank_slot) const;
  BoardTensor* outputs(uint32_t place, uint32_t rank_slot) const;
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

// The other side of the arenas of all places, which come through one socket. Take() and Follow() of one place: one
// thread at a time; of different places: at the same time.
class TensorWindows {
 public:
  explicit TensorWindows(uint32_t places = 1) : windows_(places) {}

  // Receives memories through the socket until the place has the generation (at most the socket's time-out). What
  // comes for other places lies ready until they ask for it.
  Status Follow(int socket, uint32_t place, uint64_t generation);
  // A tensor as the other side described it, copied and checked against itself and the memory.
  bool Take(uint32_t place, const BoardTensor& described, MsServingTensor* tensor) const;

 private:
  struct Window {
    SharedMemory memory;
    uint64_t generation = 0;
    std::deque<SharedMemory> arrived;  // guarded by mutex_
  };
  Status Receive(int socket);

  std::deque<Window> windows_;
  std::mutex mutex_;
};

// Sends the memory of a place's arena to the windows at the other end of the socket.
Status SendMemory(int socket, uint32_t place, int fd);

}  // namespace msserving
