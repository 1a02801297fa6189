// What the worker and local ranks share: where things lie, and memories that grow while several runs are out.
#include "distributed/local_board.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstring>
#include <string>
#include <vector>

#include "rank_test_support.h"
#include "tensor/control_socket.h"

namespace msserving {
namespace {

using testing::Floats;
using testing::FloatTensor;

TEST(LocalBoard, PlacesAndSlotsDoNotOverlap) {
  for (const BoardShape shape : {BoardShape{1, 1, 1, 1}, BoardShape{3, 2, 5, 3}, BoardShape{2, kMaxRunsOut, 40, 17}}) {
    SharedMemory memory;
    ASSERT_TRUE(SharedMemory::Create("test-board", shape.Bytes(), &memory).ok());
    LocalBoard board;
    ASSERT_TRUE(LocalBoard::Open(std::move(memory), shape, &board).ok());
    struct Part {
      uint8_t* at;
      size_t bytes;
    };
    std::vector<Part> parts{{reinterpret_cast<uint8_t*>(&board.head()), sizeof(BoardHead)}};
    for (uint32_t place = 0; place < shape.runs; ++place) {
      parts.push_back({reinterpret_cast<uint8_t*>(&board.order(place)), sizeof(BoardOrder)});
      parts.push_back({reinterpret_cast<uint8_t*>(board.inputs(place)), shape.max_inputs * sizeof(BoardTensor)});
      for (uint32_t slot = 0; slot < shape.slots; ++slot) {
        parts.push_back({reinterpret_cast<uint8_t*>(&board.slot(place, slot)), sizeof(BoardSlot)});
        parts.push_back(
            {reinterpret_cast<uint8_t*>(board.outputs(place, slot)), shape.max_outputs * sizeof(BoardTensor)});
      }
    }
    // Each part has a number of its own in all of its bytes, and keeps it.
    for (size_t i = 0; i < parts.size(); ++i) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(parts[i].at) % 8, 0U);
      ASSERT_LE(parts[i].at + parts[i].bytes, parts[0].at + shape.Bytes());
      std::memset(parts[i].at, static_cast<int>(i % 251), parts[i].bytes);
    }
    for (size_t i = 0; i < parts.size(); ++i) {
      ASSERT_EQ(std::string(parts[i].at, parts[i].at + parts[i].bytes),
                std::string(parts[i].bytes, static_cast<char>(i % 251)))
          << "part " << i;
    }
  }
}

TEST(LocalBoard, ShapesThatDoNotFitAreRefused) {
  for (const BoardShape shape :
       {BoardShape{1, 0, 1, 1}, BoardShape{1, kMaxRunsOut + 1, 1, 1}, BoardShape{1, 1, kMaxTensors + 1, 1}}) {
    SharedMemory memory;
    ASSERT_TRUE(SharedMemory::Create("test-board", 16 << 20, &memory).ok());
    LocalBoard board;
    EXPECT_FALSE(LocalBoard::Open(std::move(memory), shape, &board).ok());
  }
  SharedMemory small;
  ASSERT_TRUE(SharedMemory::Create("test-board", 4096, &small).ok());
  LocalBoard board;
  EXPECT_FALSE(LocalBoard::Open(std::move(small), BoardShape{4, 4, 8, 8}, &board).ok());
}

class WindowsTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(MakeControlPair(&near_, &far_).ok()); }

  // Puts values into an arena and sends its memory if that is new, as the side that writes does.
  BoardTensor Write(uint32_t place, TensorArena* arena, std::vector<float> values) {
    BoardTensor placed{};
    const MsServingTensor tensor = FloatTensor(&values, {static_cast<int64_t>(values.size())});
    const uint64_t before = arena->generation();
    EXPECT_TRUE(arena->Place({&tensor, 1}, &placed).ok());
    if (arena->generation() != before) {
      EXPECT_TRUE(SendMemory(near_.get(), place, arena->fd()).ok());
    }
    std::memcpy(arena->base() + placed.offset, tensor.data, tensor.bytes);
    return placed;
  }

  std::vector<float> Read(TensorWindows* windows, uint32_t place, uint64_t generation, const BoardTensor& placed) {
    const Status status = windows->Follow(far_.get(), place, generation);
    MsServingTensor tensor{};
    if (!status.ok() || !windows->Take(place, placed, &tensor)) {
      ADD_FAILURE() << status.message();
      return {};
    }
    return Floats(tensor);
  }

  UniqueFd near_;
  UniqueFd far_;
};

TEST_F(WindowsTest, MemoriesOfOtherPlacesWaitUntilTheyAreAskedFor) {
  TensorArena first{"test-0"};
  TensorArena second{"test-1"};
  const BoardTensor of_first = Write(0, &first, {1, 2});
  const BoardTensor of_second = Write(1, &second, {3});
  TensorWindows windows(2);
  // The second place is asked for first: what came for the first one is not lost.
  EXPECT_EQ(Read(&windows, 1, 1, of_second), (std::vector<float>{3}));
  EXPECT_EQ(Read(&windows, 0, 1, of_first), (std::vector<float>{1, 2}));
}

TEST_F(WindowsTest, AMemoryThatIsReadStaysWhenALargerOneForItsPlaceArrives) {
  TensorArena first{"test-0"};
  TensorArena second{"test-1"};
  const BoardTensor old = Write(0, &first, {1});
  TensorWindows windows(2);
  ASSERT_TRUE(windows.Follow(far_.get(), 0, 1).ok());
  MsServingTensor tensor{};
  ASSERT_TRUE(windows.Take(0, old, &tensor));
  // Two larger ones for place 0, which nobody has asked for, before that of place 1.
  Write(0, &first, std::vector<float>(1 << 20, 2));
  const BoardTensor largest = Write(0, &first, std::vector<float>(3 << 20, 4));
  const BoardTensor of_second = Write(1, &second, {5});
  EXPECT_EQ(Read(&windows, 1, 1, of_second), (std::vector<float>{5}));
  EXPECT_EQ(Floats(tensor), (std::vector<float>{1}));
  EXPECT_EQ(Read(&windows, 0, 3, largest).back(), 4);
  EXPECT_FALSE(windows.Follow(far_.get(), 0, 2).ok());  // has passed
}

TEST_F(WindowsTest, MessagesThatAreNoMemoryOfAPlaceAreRefused) {
  TensorArena arena{"test-0"};
  TensorWindows windows(2);
  Write(2, &arena, {1});
  EXPECT_FALSE(windows.Follow(far_.get(), 0, 1).ok());
  ASSERT_TRUE(SendControl(near_.get(), 'M', "", {arena.fd()}).ok());
  EXPECT_FALSE(windows.Follow(far_.get(), 0, 1).ok());
  ASSERT_TRUE(SendControl(near_.get(), 'M', std::string(1, '\0')).ok());
  EXPECT_FALSE(windows.Follow(far_.get(), 0, 1).ok());
}

TEST_F(WindowsTest, MoreMemoriesThanAnArenaCanSendAreRefused) {
  TensorArena arena{"test-0"};
  TensorWindows windows(2);
  Write(0, &arena, {1});
  for (int i = 0; i < 64; ++i) {
    ASSERT_TRUE(SendMemory(near_.get(), 0, arena.fd()).ok());
  }
  EXPECT_FALSE(windows.Follow(far_.get(), 1, 1).ok());
}

}  // namespace
}  // namespace msserving
